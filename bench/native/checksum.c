/*
 * Internet checksum with SSE2, two ways; the benchmark compares with the faster one at each size.
 *   checksum_range       masks and shifts: even and odd words in accumulators of their own
 *   checksum_range_madd  multiply-add: words biased to signed ones, pairs summed by one instruction, the bias taken out
 */
#include "checksum.h"

#include <emmintrin.h>
#include <string.h>

static uint32_t fold(uint64_t sum) {
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 32) + (sum & 0xffffffff);
  uint32_t low = (uint32_t)sum;
  low = (low >> 16) + (low & 0xffff);
  low = (low >> 16) + (low & 0xffff);
  return low;
}

static uint64_t tail_sum(const uint8_t *bytes, size_t length) {
  uint64_t total = 0;
  while (length >= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    total += (word & 0xffffffff) + (word >> 32);
    bytes += 8;
    length -= 8;
  }
  uint64_t last = 0;
  memcpy(&last, bytes, length);
  return total + (last & 0xffffffff) + (last >> 32);
}

static uint64_t lanes(__m128i v) {
  uint32_t lane[4];
  _mm_storeu_si128((__m128i *)lane, v);
  return (uint64_t)lane[0] + lane[1] + lane[2] + lane[3];
}

uint32_t checksum_range(const uint8_t *bytes, size_t length) {
  const __m128i mask = _mm_set1_epi32(0xffff);
  uint64_t total = 0;
  while (length >= 64) {
    size_t pass = length < 65536 ? length & ~(size_t)63 : 65536;
    length -= pass;
    __m128i even = _mm_setzero_si128(), odd = even, even2 = even, odd2 = even;
    for (const uint8_t *end = bytes + pass; bytes < end; bytes += 64) {
      const __m128i a = _mm_loadu_si128((const __m128i *)bytes);
      const __m128i b = _mm_loadu_si128((const __m128i *)(bytes + 16));
      const __m128i c = _mm_loadu_si128((const __m128i *)(bytes + 32));
      const __m128i d = _mm_loadu_si128((const __m128i *)(bytes + 48));
      even = _mm_add_epi32(even, _mm_add_epi32(_mm_and_si128(a, mask), _mm_and_si128(b, mask)));
      odd = _mm_add_epi32(odd, _mm_add_epi32(_mm_srli_epi32(a, 16), _mm_srli_epi32(b, 16)));
      even2 = _mm_add_epi32(even2, _mm_add_epi32(_mm_and_si128(c, mask), _mm_and_si128(d, mask)));
      odd2 = _mm_add_epi32(odd2, _mm_add_epi32(_mm_srli_epi32(c, 16), _mm_srli_epi32(d, 16)));
    }
    total += lanes(_mm_add_epi32(_mm_add_epi32(even, odd), _mm_add_epi32(even2, odd2)));
  }
  return fold(total + tail_sum(bytes, length));
}

uint32_t checksum_range_madd(const uint8_t *bytes, size_t length) {
  const __m128i bias = _mm_set1_epi16((short)0x8000);
  const __m128i ones = _mm_set1_epi16(1);
  uint64_t total = 0;
  while (length >= 64) {
    size_t pass = length < 65536 ? length & ~(size_t)63 : 65536;
    length -= pass;
    total += (uint64_t)(pass / 2) * 32768;
    __m128i s0 = _mm_setzero_si128(), s1 = s0, s2 = s0, s3 = s0;
    for (const uint8_t *end = bytes + pass; bytes < end; bytes += 64) {
      const __m128i *block = (const __m128i *)bytes;
      s0 = _mm_add_epi32(s0, _mm_madd_epi16(_mm_xor_si128(_mm_loadu_si128(block), bias), ones));
      s1 = _mm_add_epi32(s1, _mm_madd_epi16(_mm_xor_si128(_mm_loadu_si128(block + 1), bias), ones));
      s2 = _mm_add_epi32(s2, _mm_madd_epi16(_mm_xor_si128(_mm_loadu_si128(block + 2), bias), ones));
      s3 = _mm_add_epi32(s3, _mm_madd_epi16(_mm_xor_si128(_mm_loadu_si128(block + 3), bias), ones));
    }
    int32_t lane[4];
    _mm_storeu_si128((__m128i *)lane, _mm_add_epi32(_mm_add_epi32(s0, s1), _mm_add_epi32(s2, s3)));
    total += (uint64_t)((int64_t)lane[0] + lane[1] + lane[2] + lane[3]);
  }
  return fold(total + tail_sum(bytes, length));
}
