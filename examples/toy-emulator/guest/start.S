# Where the machine begins: a stack, an empty .bss, the trap handler, then main. When main returns, the power goes off.

  .section .text.start
  .globl _start
_start:
  la    sp, stack_top
  la    t0, image_end
  la    t1, bss_end
1:
  bgeu  t0, t1, 2f
  sw    zero, 0(t0)
  addi  t0, t0, 4
  j     1b
2:
  la    t0, trap
  csrw  mtvec, t0
  call  main
  slli  a0, a0, 16
  li    t0, 0x5555
  or    a0, a0, t0
  li    t1, 0x00100000
  sw    a0, 0(t1)
3:
  wfi
  j     3b
