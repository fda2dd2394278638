// SPDX-License-Identifier: Apache-2.0
void _start(void);
void _start(void)
{
	__asm__ volatile("int $0x80" : : "a"(1), "b"(0));
	for (;;)
		;
}
