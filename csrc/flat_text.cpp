#include "flat_text.h"

#include <array>
#include <cstring>

namespace codeact {

namespace {

constexpr size_t kPadding = 7;
constexpr size_t kBlock = 64;

// Small letters for capitals, a space for ASCII's white space, the rest as it is.
std::array<char, 256> make_folding() {
  std::array<char, 256> folding{};
  for (int byte = 0; byte < 256; ++byte) {
    const bool capital = 'A' <= byte && byte <= 'Z';
    const bool space = (9 <= byte && byte <= 13) || (28 <= byte && byte <= 32);
    folding[byte] = static_cast<char>(space ? ' ' : capital ? byte + ('a' - 'A') : byte);
  }
  return folding;
}

const std::array<char, 256> kFolding = make_folding();

// Bytes of the white space beyond ASCII that `left` bytes at `data` begin with, 0 if none.
int wide_space(const unsigned char* data, size_t left) {
  if (data[0] == 0xC2 && left >= 2) return data[1] == 0x85 || data[1] == 0xA0 ? 2 : 0;
  if (left < 3) return 0;
  const int tail = data[1] << 8 | data[2];
  if (data[0] == 0xE1) return tail == 0x9A80 ? 3 : 0;  // U+1680
  if (data[0] == 0xE3) return tail == 0x8080 ? 3 : 0;  // U+3000
  if (data[0] != 0xE2) return 0;
  const bool quad = 0x8080 <= tail && tail <= 0x808A;                    // U+2000 to U+200A
  const bool line = tail == 0x80A8 || tail == 0x80A9 || tail == 0x80AF;  // U+2028, 2029, 202F
  return quad || line || tail == 0x819F ? 3 : 0;                         // U+205F
}

uint64_t mixed(uint64_t value) {  // the end of splitmix64: every bit depends on every bit
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

uint64_t hash_word(const char* data, size_t size) {
  uint64_t hash = size * 0x9E3779B97F4A7C15u;
  for (; size > 8; size -= 8, data += 8) hash = mixed(hash ^ first_bytes(data, 8));
  return mixed(hash ^ first_bytes(data, static_cast<int>(size)));
}

// Bit j is set where byte j of 64 belongs to a word.
uint64_t word_bits(const char* data) {
  std::array<unsigned char, kBlock> inside;
  for (size_t j = 0; j < kBlock; ++j) {  // without branches, so that it is vectorised
    const auto byte = static_cast<unsigned char>(data[j]);
    inside[j] = static_cast<unsigned char>(static_cast<unsigned char>(byte - 'a') < 26) |
                static_cast<unsigned char>(static_cast<unsigned char>(byte - '0') < 10) |
                static_cast<unsigned char>(byte == '_');
  }
  uint64_t bits = 0;
  for (size_t j = 0; j < kBlock; ++j) bits |= static_cast<uint64_t>(inside[j]) << j;
  return bits;
}

}  // namespace

size_t flatten(std::string_view text, std::string& flat) {
  flat.resize(text.size() + kPadding);
  char* const begin = flat.data();
  char* end = begin;
  char before = ' ';  // so that none comes first
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    char folded = kFolding[byte];
    int width = 1;
    if (byte >= 0xC2) {
      const auto* const data = reinterpret_cast<const unsigned char*>(text.data()) + i;
      if (const int space = wide_space(data, text.size() - i)) {
        folded = ' ';
        width = space;
      }
    }
    // Every byte is written, and overwritten where it was a second space: no branch to foresee.
    *end = folded;
    end += !(folded == ' ' && before == ' ');
    before = folded;
    i += width;
  }
  if (end != begin && end[-1] == ' ') --end;
  std::memset(end, 0, kPadding);
  return static_cast<size_t>(end - begin);
}

void hash_words(const char* flat, size_t size, std::vector<uint64_t>& hashes) {
  size_t start = 0;  // of the word that is open, where one is
  bool open = false;
  for (size_t block = 0; block < size; block += kBlock) {
    std::array<char, kBlock> last{};
    const bool whole = block + kBlock <= size;
    if (!whole) std::memcpy(last.data(), flat + block, size - block);
    const uint64_t bits = word_bits(whole ? flat + block : last.data());
    // A bit where a word begins or ends.
    uint64_t edges = bits ^ (bits << 1 | (open ? 1 : 0));
    for (; edges != 0; edges &= edges - 1) {
      const size_t edge = block + static_cast<size_t>(__builtin_ctzll(edges));
      if (open) {
        hashes.push_back(hash_word(flat + start, edge - start));
      } else {
        start = edge;
      }
      open = !open;
    }
  }
  if (open) hashes.push_back(hash_word(flat + start, size - start));
}

}  // namespace codeact
