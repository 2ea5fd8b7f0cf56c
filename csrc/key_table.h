#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace codeact {

// 64-bit keys that nearly never occur in what they are looked up for: a bitmap that stays in the
// cache answers first, an open-addressing table the rest.
class KeyTable {
 public:
  // `keys` must differ from each other; a key is known by its place.
  explicit KeyTable(std::vector<uint64_t> keys) : keys_(std::move(keys)) {
    // 32 bits a key: 3 % of other keys pass.
    while ((uint64_t{1} << (64 - shift_)) < 32 * keys_.size()) --shift_;
    bitmap_.resize((size_t{1} << (64 - shift_)) / 64);
    mask_ = (size_t{1} << (64 - shift_)) / 16 - 1;  // at most half of the slots are taken
    slots_.assign(mask_ + 1, -1);
    for (size_t place = 0; place < keys_.size(); ++place) {
      const uint64_t scattered = scatter(keys_[place], shift_);
      bitmap_[scattered >> 6] |= uint64_t{1} << (scattered & 63);
      size_t slot = scattered & mask_;
      while (slots_[slot] >= 0) slot = (slot + 1) & mask_;
      slots_[slot] = static_cast<int32_t>(place);
    }
  }

  // The place of `key`, -1 where it is none of the keys.
  int32_t find(uint64_t key) const {
    const uint64_t scattered = scatter(key, shift_);
    if (!holds(bitmap_.data(), scattered)) return -1;
    size_t slot = scattered & mask_;
    while (slots_[slot] >= 0 && keys_[slots_[slot]] != key) slot = (slot + 1) & mask_;
    return slots_[slot];
  }

  // The first i from `begin` on for which key_at(i) may be a key, `end` where there is none.
  template <typename KeyAt>
  size_t first_likely(size_t begin, size_t end, KeyAt key_at) const {
    const uint64_t* const bitmap = bitmap_.data();  // in registers: the loop is a few instructions
    const int shift = shift_;
    while (begin < end && !holds(bitmap, scatter(key_at(begin), shift))) ++begin;
    return begin;
  }

 private:
  // The upper bits of a product, which depend on all of the key (Fibonacci hashing).
  static uint64_t scatter(uint64_t key, int shift) { return key * 0x9E3779B97F4A7C15u >> shift; }

  static bool holds(const uint64_t* bitmap, uint64_t bit) {
    return (bitmap[bit >> 6] >> (bit & 63) & 1) != 0;
  }

  std::vector<uint64_t> keys_;
  int shift_ = 54;  // the bitmap has 2^(64 - shift) bits
  std::vector<uint64_t> bitmap_;
  size_t mask_;
  std::vector<int32_t> slots_;
};

}  // namespace codeact
