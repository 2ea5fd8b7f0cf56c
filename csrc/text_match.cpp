#include "text_match.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <string>

#include "check.h"
#include "flat_text.h"
#include "threads.h"

namespace codeact {

namespace {

constexpr int kAnchor = 8;             // bytes: what one load takes
constexpr int kTextsAtOnce = 64;       // that a thread takes before it asks for more
constexpr size_t kCounters = 1 << 20;  // for the frequency of 8 bytes; a shared one does no harm
constexpr uint64_t kBase = 0x9E3779B97F4A7C15u;

size_t counter_of(uint64_t key) { return key * kBase >> 44; }

// One pattern's anchor: the offset of the bytes that the fewest patterns have.
int32_t rarest(const char* pattern, size_t size, int width, const std::vector<uint32_t>& counts) {
  int32_t best = 0;
  uint32_t least = ~uint32_t{0};
  for (size_t offset = 0; offset + width <= size; ++offset) {
    const uint32_t count = counts[counter_of(first_bytes(pattern + offset, width))];
    if (count < least) {
      least = count;
      best = static_cast<int32_t>(offset);
    }
  }
  return best;
}

// Replaces `words` by the hashes of its windows of `width` words, a polynomial modulo 2^64 each.
void roll(std::vector<uint64_t>& words, size_t width, std::vector<uint64_t>& windows) {
  windows.clear();
  if (words.size() < width) return;
  uint64_t leaving = 1;  // kBase^width
  for (size_t i = 0; i < width; ++i) leaving *= kBase;
  uint64_t hash = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    hash = hash * kBase + words[i];
    if (i >= width) hash -= leaving * words[i - width];
    if (i + 1 >= width) windows.push_back(hash);
  }
}

void keep_different(std::vector<uint64_t>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

std::vector<std::string> flattened(const std::vector<std::string_view>& patterns) {
  std::vector<std::string> flat(patterns.size());
  for (size_t i = 0; i < patterns.size(); ++i) {
    const size_t size = flatten(patterns[i], flat[i]);
    check(size > 0, "patterns[", i, "] must hold more than white space");
    flat[i].resize(size);
  }
  return flat;
}

}  // namespace

template <typename Owner>
TextIndex::Postings<Owner>::Postings(std::vector<std::pair<uint64_t, Owner>> pairs) : table({}) {
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<uint64_t> keys;
  for (const auto& [key, owner] : pairs) {
    if (keys.empty() || keys.back() != key) {
      keys.push_back(key);
      first.push_back(static_cast<int32_t>(owners.size()));
    }
    owners.push_back(owner);
  }
  first.push_back(static_cast<int32_t>(owners.size()));
  table = KeyTable(std::move(keys));
}

// What a thread has for itself.
struct TextIndex::Scratch {
  std::string flat;
  size_t size = 0;
  std::vector<uint64_t> words, windows;
  std::vector<int32_t> last_text;  // a pattern's, in which it has been found; -1 at first
  std::vector<int32_t> places;     // of n-grams that are known
  std::vector<int32_t> shared;     // n-grams, of each document; 0 between texts
  std::vector<int32_t> touched;    // documents that share one
  TextMatches matches;
};

TextIndex::TextIndex(const std::vector<std::string_view>& patterns,
                     const std::vector<std::string_view>& documents, int32_t ngram)
    : patterns_(flattened(patterns)),
      anchors_(anchors_of(patterns_)),
      ngram_(ngram),
      ngrams_(ngrams_of(documents)) {}

std::vector<TextIndex::AnchorsOfWidth> TextIndex::anchors_of(
    const std::vector<std::string>& patterns) {
  std::vector<uint32_t> counts(kCounters);
  const auto width_of = [](const std::string& pattern) {
    return static_cast<int>(std::min<size_t>(kAnchor, pattern.size()));
  };
  std::vector<std::string> padded(patterns);
  for (size_t i = 0; i < patterns.size(); ++i) {
    const int width = width_of(patterns[i]);
    padded[i].append(kAnchor, '\0');  // so that 8 bytes can be read at each
    for (size_t offset = 0; offset + width <= patterns[i].size(); ++offset) {
      ++counts[counter_of(first_bytes(padded[i].data() + offset, width))];
    }
  }
  std::map<int, std::vector<std::pair<uint64_t, Anchor>>> by_width;
  for (size_t i = 0; i < patterns.size(); ++i) {
    const int width = width_of(patterns[i]);
    const int32_t offset = rarest(padded[i].data(), patterns[i].size(), width, counts);
    by_width[width].emplace_back(first_bytes(padded[i].data() + offset, width),
                                 Anchor{static_cast<int32_t>(i), offset});
  }
  std::vector<AnchorsOfWidth> anchors;
  for (auto& [width, pairs] : by_width) {
    anchors.push_back({width, Postings<Anchor>(std::move(pairs))});
  }
  return anchors;
}

TextIndex::Postings<int32_t> TextIndex::ngrams_of(const std::vector<std::string_view>& documents) {
  std::vector<std::pair<uint64_t, int32_t>> pairs;
  Scratch scratch;
  for (size_t document = 0; document < documents.size(); ++document) {
    scratch.words.clear();
    scratch.size = flatten(documents[document], scratch.flat);
    hash_words(scratch.flat.data(), scratch.size, scratch.words);
    roll(scratch.words, ngram_, scratch.windows);
    keep_different(scratch.windows);
    num_ngrams_.push_back(static_cast<int32_t>(scratch.windows.size()));
    for (const uint64_t window : scratch.windows) {
      pairs.emplace_back(window, static_cast<int32_t>(document));
    }
  }
  return Postings<int32_t>(std::move(pairs));
}

void TextIndex::find_patterns(int32_t text, Scratch& scratch) const {
  const char* const flat = scratch.flat.data();
  const size_t size = scratch.size;
  const size_t num_before = scratch.matches.found.size();
  for (const auto& [width, postings] : anchors_) {
    const auto key_at = [flat, bytes = width](size_t at) { return first_bytes(flat + at, bytes); };
    const size_t end = size + 1 < static_cast<size_t>(width) ? 0 : size + 1 - width;
    for (size_t at = 0; (at = postings.table.first_likely(at, end, key_at)) < end; ++at) {
      const int32_t place = postings.table.find(key_at(at));
      if (place < 0) continue;
      for (int32_t i = postings.first[place]; i < postings.first[place + 1]; ++i) {
        const auto [pattern, offset] = postings.owners[i];
        const std::string& wanted = patterns_[pattern];
        if (scratch.last_text[pattern] == text || at < static_cast<size_t>(offset)) continue;
        const size_t start = at - offset;
        if (start + wanted.size() > size) continue;
        if (std::memcmp(flat + start, wanted.data(), wanted.size()) != 0) continue;
        scratch.last_text[pattern] = text;
        scratch.matches.found.push_back({text, pattern});
      }
    }
  }
  std::sort(scratch.matches.found.begin() + num_before, scratch.matches.found.end(),
            [](const auto& a, const auto& b) { return a.pattern < b.pattern; });
}

void TextIndex::find_overlaps(int32_t text, const int32_t* needed, Scratch& scratch) const {
  scratch.words.clear();
  hash_words(scratch.flat.data(), scratch.size, scratch.words);
  roll(scratch.words, ngram_, scratch.windows);
  scratch.places.clear();
  for (const uint64_t window : scratch.windows) {
    const int32_t place = ngrams_.table.find(window);
    if (place >= 0) scratch.places.push_back(place);
  }
  if (scratch.places.empty()) return;
  std::sort(scratch.places.begin(), scratch.places.end());  // an n-gram counts once
  const auto end = std::unique(scratch.places.begin(), scratch.places.end());
  scratch.touched.clear();
  for (auto place = scratch.places.begin(); place != end; ++place) {
    for (int32_t i = ngrams_.first[*place]; i < ngrams_.first[*place + 1]; ++i) {
      const int32_t document = ngrams_.owners[i];
      if (scratch.shared[document]++ == 0) scratch.touched.push_back(document);
    }
  }
  std::sort(scratch.touched.begin(), scratch.touched.end());
  for (const int32_t document : scratch.touched) {
    const int32_t shared = std::exchange(scratch.shared[document], 0);
    if (shared >= needed[document]) scratch.matches.overlaps.push_back({text, document, shared});
  }
}

TextMatches TextIndex::find(const std::vector<std::string_view>& texts, const int32_t* needed,
                            int num_threads) const {
  const int32_t num_texts = static_cast<int32_t>(texts.size());
  const int32_t num_chunks = (num_texts + kTextsAtOnce - 1) / kTextsAtOnce;
  std::vector<TextMatches> of_chunk(num_chunks);
  std::atomic<int32_t> next{0};
  const auto work = [&] {
    Scratch scratch;
    scratch.last_text.assign(patterns_.size(), -1);
    scratch.shared.assign(num_ngrams_.size(), 0);
    for (int32_t chunk = next++; chunk < num_chunks; chunk = next++) {
      const int32_t stop = std::min(num_texts, (chunk + 1) * kTextsAtOnce);
      for (int32_t text = chunk * kTextsAtOnce; text < stop; ++text) {
        scratch.size = flatten(texts[text], scratch.flat);
        find_patterns(text, scratch);
        if (!num_ngrams_.empty()) find_overlaps(text, needed, scratch);
      }
      of_chunk[chunk] = std::exchange(scratch.matches, {});
    }
  };
  on_threads(std::min(num_threads, num_chunks), work);
  TextMatches all;
  for (const auto& part : of_chunk) {  // in the order of the texts, whoever took them
    all.found.insert(all.found.end(), part.found.begin(), part.found.end());
    all.overlaps.insert(all.overlaps.end(), part.overlaps.begin(), part.overlaps.end());
  }
  return all;
}

}  // namespace codeact
