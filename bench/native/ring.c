/* See ring.h. A file of its own, so that the four calls stay calls, as they are between JavaScript or wasm and the engine. */
#include "ring.h"

#include <string.h>

#define EPROTO 71
#define EINVAL 22

static inline uint32_t load_byte(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint32_t load_word(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void store_byte(uint8_t *p, uint8_t value) { __atomic_store_n(p, value, __ATOMIC_SEQ_CST); }

void ring_format(struct ring *ring, uint32_t count) {
  memset(ring, 0, sizeof(struct ring) + (size_t)count * sizeof(struct descriptor));
  ring->magic = 0x47fa2fe4;
  ring->version = 4;
  ring->count = count;
  ring->signal.magic = 0x58fa39df;
  ring->signal.version = 1;
}

void ring_bind(struct endpoint *endpoint, struct ring *ring, const struct regions *regions, uint32_t locale, uint32_t owned,
               uint32_t extensions) {
  memset(endpoint, 0, sizeof *endpoint);
  endpoint->ring = ring;
  endpoint->local = &ring->signal.irq[locale];
  endpoint->remote = &ring->signal.irq[1 - locale];
  endpoint->regions = regions;
  endpoint->locale = locale;
  endpoint->count = ring->count;
  endpoint->owned = owned;
  endpoint->extensions = extensions;
}

static int violate(struct endpoint *endpoint) {
  endpoint->broken = 1;
  return -EPROTO;
}

static inline bool owns(const struct endpoint *endpoint, uint32_t index, uint32_t end) {
  return (endpoint->owned & (1u << ((index << 1) | end))) != 0;
}

/* An index end that the peer moves: read once, checked. */
static inline int index_value(struct endpoint *endpoint, uint32_t index, uint32_t end) {
  if (owns(endpoint, index, end)) return (int)endpoint->index[index][end];
  const struct index *shared = &endpoint->ring->idx[index];
  const uint32_t value = load_word(end == 0 ? &shared->head : &shared->tail);
  if (value >= endpoint->count) return violate(endpoint);
  return (int)value;
}

static inline uint32_t translate(const struct regions *regions, uint64_t gpa, uint64_t length) {
  uint32_t count = regions->count;
  if (count > 15) count = 15;
  for (uint32_t i = 0; i < count; i++) {
    const struct region *region = &regions->entry[i];
    if (gpa >= region->gpa) {
      const uint64_t offset = gpa - region->gpa;
      const uint64_t size = region->length;
      if (offset <= size && length <= size - offset) return region->address + (uint32_t)offset;
    }
  }
  return 0;
}

static inline void fill_entry(const struct descriptor *descriptor, struct entry *entry, uint64_t gpa, uint64_t length,
                              uint32_t position, uint32_t address) {
  entry->cookie = descriptor->cookie;
  entry->gpa = gpa;
  entry->address = address;
  entry->length = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
  memset(&entry->flags, 0, 16); /* flags, checksum places, segmentation, fragments */
  entry->fragment_list = 0;
  entry->position = position;
}

/* n descriptors before the end of the ring, without translation. */
static int gather_run(struct endpoint *endpoint, const struct descriptor *descriptor, struct entry *table,
                      uint32_t position, uint32_t n) {
  const uint32_t locale = endpoint->locale;
  struct entry *entry = table;
  for (struct entry *end = table + n; entry != end; entry++, descriptor++, position++) {
    const uint32_t owner = load_byte(&descriptor->sown);
    if (owner != locale) {
      if (owner > SOUTH) return violate(endpoint);
      break;
    }
    fill_entry(descriptor, entry, descriptor->ptr, descriptor->len, position, 0);
  }
  return (int)(entry - table);
}

/* … and with it: most guests have one region, the others are asked when it is not that. */
static int gather_translated(struct endpoint *endpoint, const struct descriptor *descriptor, struct entry *table,
                             uint32_t position, uint32_t n) {
  const uint32_t locale = endpoint->locale;
  const struct regions *regions = endpoint->regions;
  const uint64_t start = regions->entry[0].gpa;
  const uint64_t size = regions->count != 0 ? regions->entry[0].length : 0;
  const uint32_t base = regions->entry[0].address;
  struct entry *entry = table;
  for (struct entry *end = table + n; entry != end; entry++, descriptor++, position++) {
    const uint32_t owner = load_byte(&descriptor->sown);
    if (owner != locale) {
      if (owner > SOUTH) return violate(endpoint);
      break;
    }
    const uint64_t gpa = descriptor->ptr;
    const uint64_t length = descriptor->len;
    const uint64_t offset = gpa - start;
    uint32_t address = base + (uint32_t)offset;
    if (offset >= size || length > size - offset) address = translate(regions, gpa, length);
    fill_entry(descriptor, entry, gpa, length, position, address);
  }
  return (int)(entry - table);
}

static int count_owned(struct endpoint *endpoint, uint32_t position, uint32_t limit) {
  const uint32_t locale = endpoint->locale;
  const uint32_t count = endpoint->count;
  const struct descriptor *ring = endpoint->ring->desc;
  for (uint32_t n = 0; n < limit; n++) {
    const uint32_t owner = load_byte(&ring[position].sown);
    if (owner != locale) return owner > SOUTH ? violate(endpoint) : (int)n;
    if (++position == count) position = 0;
  }
  return (int)limit;
}

static int gather(struct endpoint *endpoint, uint32_t position, struct entry *table, uint32_t max, uint32_t flags) {
  const uint32_t count = endpoint->count;
  const uint32_t limit = max < count ? max : count;
  if (!table) return count_owned(endpoint, position, limit);
  uint32_t done = 0;
  do {
    const uint32_t straight = count - position < limit - done ? count - position : limit - done;
    const struct descriptor *descriptor = &endpoint->ring->desc[position];
    const int found = (flags & BURST_TRANSLATE) != 0
                          ? gather_translated(endpoint, descriptor, table + done, position, straight)
                          : gather_run(endpoint, descriptor, table + done, position, straight);
    if (found < 0) return found;
    done += (uint32_t)found;
    if ((uint32_t)found != straight) break;
    position = 0;
  } while (done < limit);
  return (int)done;
}

int push_reserve(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t max, uint32_t flags) {
  if (endpoint->broken) return -EPROTO;
  if (index > IDX_BOTH) return -EINVAL;
  const uint32_t bound = index == IDX_BOTH ? IDX_VALID : index;
  if (!owns(endpoint, bound, 1)) return -EINVAL;
  uint32_t limit = max;
  if (bound == IDX_VALID) {
    const uint32_t room = endpoint->count - endpoint->valid_count;
    if (limit > room) limit = room;
  }
  const int granted = gather(endpoint, endpoint->index[bound][1], table, limit, flags);
  endpoint->granted_push = granted < 0 ? 0 : (uint32_t)granted;
  return granted;
}

int pop_peek(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t max, uint32_t flags) {
  if (endpoint->broken) return -EPROTO;
  if (index > IDX_INUSE || !owns(endpoint, index, 0)) return -EINVAL;
  uint32_t limit = max;
  if (index == IDX_VALID && limit > endpoint->valid_count) limit = endpoint->valid_count;
  const int granted = gather(endpoint, endpoint->index[index][0], table, limit, flags);
  endpoint->granted_pop = granted < 0 ? 0 : (uint32_t)granted;
  return granted;
}

static void write_descriptors(struct endpoint *endpoint, uint32_t first, uint32_t n, const struct entry *table,
                              uint32_t flags) {
  const uint32_t count = endpoint->count;
  struct descriptor *ring = endpoint->ring->desc;
  uint32_t position = first;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < n; i++, table++) {
    struct descriptor *descriptor = &ring[position];
    if (flags & BURST_POINTER) descriptor->ptr = table->gpa;
    if (flags & BURST_COOKIE) descriptor->cookie = table->cookie;
    if (flags & BURST_LENGTH) {
      descriptor->len = table->length;
      bytes += table->length;
    }
    if (flags & BURST_SET_VALID) descriptor->valid = 1;
    if (flags & BURST_CLEAR_VALID) descriptor->valid = 0;
    if (++position == count) position = 0;
  }
  endpoint->bytes += bytes;
}

static void flip_owners(struct endpoint *endpoint, uint32_t first, uint32_t n) {
  const uint32_t count = endpoint->count;
  const uint8_t peer = (uint8_t)(1 - endpoint->locale);
  struct descriptor *ring = endpoint->ring->desc;
  uint32_t position = first;
  for (uint32_t i = 1; i < n; i++) {
    if (++position == count) position = 0;
    ring[position].sown = peer;
  }
  store_byte(&ring[first].sown, peer);
}

/* Always right after an owner was published by a full store, so a negotiated peer's dirty needs no second one while set. */
static int inject(struct endpoint *endpoint) {
  struct irq *remote = endpoint->remote;
  if ((endpoint->extensions & EXT_LAZY) == 0 || load_byte(&remote->dirty) == 0) store_byte(&remote->dirty, 1);
  if (load_byte(&remote->enabled) == 0) {
    endpoint->masked++;
    return 0;
  }
  if (load_byte(&remote->pending) != 0) {
    endpoint->suppressed++;
    return 0;
  }
  store_byte(&remote->pending, 1);
  endpoint->sent++;
  return 1;
}

static inline uint32_t wrap(const struct endpoint *endpoint, uint32_t position, uint32_t n) {
  const uint32_t next = position + n;
  return next >= endpoint->count ? next - endpoint->count : next;
}

static inline void publish_tail(struct endpoint *endpoint, uint32_t index, uint32_t tail, bool full) {
  struct index *shared = &endpoint->ring->idx[index];
  if (full) shared->full = 1;
  shared->tail = tail;
}

int push_commit(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t n, uint32_t flags) {
  if (endpoint->broken) return -EPROTO;
  const uint32_t granted = endpoint->granted_push;
  if (n > granted || index > IDX_BOTH) return -EINVAL;
  if (n == 0) return (flags & BURST_SIGNAL) ? inject(endpoint) : 0;
  const uint32_t bound = index == IDX_BOTH ? IDX_VALID : index;
  const uint32_t first = endpoint->index[bound][1];
  const uint32_t tail = wrap(endpoint, first, n);
  const bool lazy = (endpoint->extensions & EXT_LAZY) != 0;
  int head = -1;
  if (index == IDX_BOTH) {
    if (!owns(endpoint, IDX_INUSE, 1)) return -EINVAL;
    if (endpoint->index[IDX_INUSE][1] != first) return violate(endpoint);
  }
  if (index != IDX_VALID && !lazy) {
    head = index_value(endpoint, IDX_INUSE, 0);
    if (head < 0) return head;
  }
  if (flags & (BURST_POINTER | BURST_COOKIE | BURST_LENGTH | BURST_SET_VALID | BURST_CLEAR_VALID))
    write_descriptors(endpoint, first, n, table, flags);
  if (bound == IDX_VALID) {
    endpoint->valid_count += n;
    endpoint->index[IDX_VALID][1] = tail;
    if (!lazy) publish_tail(endpoint, IDX_VALID, tail, endpoint->valid_count == endpoint->count);
  }
  if (index != IDX_VALID) {
    endpoint->index[IDX_INUSE][1] = tail;
    if (!lazy) publish_tail(endpoint, IDX_INUSE, tail, tail == (uint32_t)head);
  }
  endpoint->granted_push = granted - n;
  if ((flags & BURST_NOFLIP) == 0) flip_owners(endpoint, first, n);
  endpoint->pushed += n;
  return (flags & BURST_SIGNAL) ? inject(endpoint) : 0;
}

int pop_release(struct endpoint *endpoint, uint32_t index, struct entry *table, uint32_t n, uint32_t flags) {
  if (endpoint->broken) return -EPROTO;
  const uint32_t granted = endpoint->granted_pop;
  if (n > granted || index > IDX_INUSE) return -EINVAL;
  if (n == 0) return (flags & BURST_SIGNAL) ? inject(endpoint) : 0;
  const uint32_t first = endpoint->index[index][0];
  const uint32_t head = wrap(endpoint, first, n);
  if (flags & (BURST_POINTER | BURST_COOKIE | BURST_LENGTH | BURST_SET_VALID | BURST_CLEAR_VALID))
    write_descriptors(endpoint, first, n, table, flags);
  endpoint->index[index][0] = head;
  if ((endpoint->extensions & EXT_LAZY) == 0) {
    struct index *shared = &endpoint->ring->idx[index];
    shared->head = head;
    if (load_byte(&shared->full) != 0) shared->full = 0;
  }
  if (index == IDX_VALID) endpoint->valid_count -= n;
  endpoint->granted_pop = granted - n;
  if ((flags & BURST_NOFLIP) == 0) flip_owners(endpoint, first, n);
  endpoint->popped += n;
  return (flags & BURST_SIGNAL) ? inject(endpoint) : 0;
}
