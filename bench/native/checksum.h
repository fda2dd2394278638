#ifndef VBUS_BENCH_CHECKSUM_H
#define VBUS_BENCH_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Folded one's complement sum of little-endian 16-bit words (RFC 1071), not inverted. */
uint32_t checksum_range(const uint8_t *bytes, size_t length);
uint32_t checksum_range_madd(const uint8_t *bytes, size_t length);

#endif
