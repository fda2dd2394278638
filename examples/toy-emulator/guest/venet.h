/* The network card (docs/abi/venet.md): linear frames, one ring each way. */
#ifndef VENET_H
#define VENET_H

#include <stdint.h>

#define FRAME_MAX 1518
#define RING 128

/* Opens the device, brings the link up. `receive` gets every frame, which is valid until it returns. */
int venet_start(uint64_t id, void (*receive)(uint8_t *frame, uint32_t length));
const uint8_t *venet_mac(void);

/* One of its rings was signalled. */
void venet_signal(uint64_t cookie);

/* A buffer for the next frame, or 0 while all of them are on their way. */
uint8_t *venet_reserve(void);
/* Hands it over. The host may not know yet: see venet_flush. */
void venet_send(uint32_t length);
void venet_flush(void);
/* Until venet_reserve has one: sleeps. */
void venet_wait_for_room(void);

/* Doorbells of the transmit ring so far. */
uint32_t venet_doorbells(void);

#endif
