#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "key_table.h"

// Many strings, and the n-grams of many documents, looked for in many texts at once.

namespace codeact {

// A pattern that occurs in a text; both by their index.
struct FoundPattern {
  int32_t text, pattern;
};

// A document of whose different n-grams `shared` occur in a text.
struct Overlap {
  int32_t text, document, shared;
};

struct TextMatches {
  std::vector<FoundPattern> found;  // by text, then pattern; each pair once
  std::vector<Overlap> overlaps;    // by text, then document
};

// Patterns are found exactly. Each is known by the 8 bytes in it that the fewest others have (by
// all of it if it is shorter). One pass over a text looks up the 8 bytes at every place, and
// compares the whole pattern where they are known: about one look-up in a cached bitmap a byte,
// however many patterns there are. N-grams of words are 64-bit hashes, rolled over the words: two
// different ones are taken for each other with a chance of 2^-64 a pair.
//
// Patterns, documents and texts are UTF-8 in lower case beyond ASCII, and are taken as `flatten`
// (flat_text.h) leaves them.
class TextIndex {
 public:
  // No pattern may be empty after flattening; `ngram` is at least 1. Less than 2^31 bytes in all.
  TextIndex(const std::vector<std::string_view>& patterns,
            const std::vector<std::string_view>& documents, int32_t ngram);

  int32_t num_patterns() const { return static_cast<int32_t>(patterns_.size()); }

  // How many different n-grams each document has.
  const std::vector<int32_t>& num_ngrams() const { return num_ngrams_; }

  // What of it occurs in the texts. Overlaps are those with at least `needed[document]` shared
  // n-grams, where `needed` is at least 1. The result does not depend on `num_threads`.
  TextMatches find(const std::vector<std::string_view>& texts, const int32_t* needed,
                   int num_threads) const;

 private:
  struct Anchor {
    int32_t pattern, offset;  // where in the pattern its bytes are
  };

  // Owners of keys: those of the key in place p are [first[p], first[p + 1]).
  template <typename Owner>
  struct Postings {
    explicit Postings(std::vector<std::pair<uint64_t, Owner>> pairs);

    KeyTable table;
    std::vector<int32_t> first;
    std::vector<Owner> owners;
  };

  struct AnchorsOfWidth {
    int width;
    Postings<Anchor> postings;
  };

  struct Scratch;

  static std::vector<AnchorsOfWidth> anchors_of(const std::vector<std::string>& patterns);
  Postings<int32_t> ngrams_of(const std::vector<std::string_view>& documents);
  void find_patterns(int32_t text, Scratch& scratch) const;
  void find_overlaps(int32_t text, const int32_t* needed, Scratch& scratch) const;

  std::vector<std::string> patterns_;
  std::vector<AnchorsOfWidth> anchors_;
  int32_t ngram_;
  std::vector<int32_t> num_ngrams_;
  Postings<int32_t> ngrams_;
};

}  // namespace codeact
