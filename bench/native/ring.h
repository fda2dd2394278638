/*
 * IOQ version 4 and its bursts in C: the algorithm, the wire layout and the barriers of assembly/burst.ts, for comparison.
 *
 * Segment (docs/abi/ioq.md 1), LP64 layout:
 *    0 magic  4 ver  8 signal[16]  24 idx[valid]  36 idx[inuse]  48 count  52 extension  56 ring[count], 32 bytes each
 *
 * Barriers: an owner or `dirty` is published by a sequentially consistent byte store (xchg on x86); control bytes are read
 * by acquire loads (plain mov); everything else is a plain access.
 */
#ifndef VBUS_BENCH_RING_H
#define VBUS_BENCH_RING_H

#include <stdbool.h>
#include <stdint.h>

enum { NORTH = 0, SOUTH = 1 };
enum { IDX_VALID = 0, IDX_INUSE = 1, IDX_BOTH = 2 };
enum { OWNS_VALID_HEAD = 1, OWNS_VALID_TAIL = 2, OWNS_INUSE_HEAD = 4, OWNS_INUSE_TAIL = 8 };
enum { EXT_LAZY = 1 };
enum {
  BURST_LENGTH = 1,
  BURST_POINTER = 2,
  BURST_COOKIE = 4,
  BURST_SET_VALID = 8,
  BURST_CLEAR_VALID = 16,
  BURST_NOFLIP = 32,
  BURST_SIGNAL = 64,
  BURST_TRANSLATE = 128,
};

struct descriptor {
  uint64_t cookie;
  uint64_t ptr;
  uint64_t len;
  uint8_t valid;
  uint8_t sown;
  uint8_t pad[6];
};

struct irq {
  uint8_t enabled;
  uint8_t pending;
  uint8_t dirty;
};

struct signal {
  uint32_t magic;
  uint32_t version;
  struct irq irq[2];
  uint8_t pad[2];
};

struct index {
  uint32_t head;
  uint32_t tail;
  uint8_t full;
  uint8_t pad[3];
};

struct ring {
  uint32_t magic;
  uint32_t version;
  struct signal signal;
  struct index idx[2];
  uint32_t count;
  uint32_t extension;
  struct descriptor desc[];
};

struct region {
  uint64_t gpa;
  uint32_t length;
  uint32_t address;
};

struct regions {
  uint32_t count;
  uint32_t write_log;
  uint64_t pad;
  struct region entry[15];
};

/* One line of a burst table: 64 bytes, as in assembly/abi/arena.ts. */
struct entry {
  uint32_t address;
  uint32_t length;
  uint32_t flags;
  uint16_t csum_start;
  uint16_t csum_offset;
  uint8_t gso_kind;
  uint8_t pad;
  uint16_t gso_size;
  uint16_t header_length;
  uint16_t fragments;
  uint32_t fragment_list;
  uint32_t position;
  uint8_t head[16];
  uint64_t gpa;
  uint64_t cookie;
};

/* Private state of one side. */
struct endpoint {
  struct ring *ring;
  struct irq *local;
  struct irq *remote;
  const struct regions *regions;
  uint32_t locale;
  uint32_t count;
  uint32_t broken;
  uint32_t owned;
  uint32_t extensions;
  uint32_t index[2][2]; /* [index][0 head, 1 tail] */
  uint32_t valid_count;
  uint32_t granted_push;
  uint32_t granted_pop;
  uint64_t sent, suppressed, masked;
  uint64_t pushed, popped, bytes;
};

void ring_format(struct ring *ring, uint32_t count);
void ring_bind(struct endpoint *endpoint, struct ring *ring, const struct regions *regions, uint32_t locale, uint32_t owned,
               uint32_t extensions);
int push_reserve(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t max, uint32_t flags);
int push_commit(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t n, uint32_t flags);
int pop_peek(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t max, uint32_t flags);
int pop_release(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t n, uint32_t flags);

#endif
