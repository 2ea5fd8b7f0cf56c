#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

// Text as a search for copies sees it: without case, line breaks and indentation.

namespace codeact {

// The first `count` (1 to 8) bytes at `data` as a number. 8 bytes must be readable there.
inline uint64_t first_bytes(const char* data, int count) {
  uint64_t value;
  std::memcpy(&value, data, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return value >> (64 - 8 * count);
#else
  return value & (~uint64_t{0} >> (64 - 8 * count));
#endif
}

// Writes `text` to `flat`: A-Z in lower case, each run of white space one space, none at the ends.
// What is white space is what Python's str.split takes for it, in UTF-8. Case beyond ASCII stays.
// Seven zero bytes follow the result in its buffer, so that 8 can be read from each of its bytes.
//
// Returns the size without those.
size_t flatten(std::string_view text, std::string& flat);

// Appends to `hashes` one 64-bit hash for each word of a text that `flatten` has left; a word is
// [a-z0-9_]+. Equal words have equal hashes.
void hash_words(const char* flat, size_t size, std::vector<uint64_t>& hashes);

}  // namespace codeact
