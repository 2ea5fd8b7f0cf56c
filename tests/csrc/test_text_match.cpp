#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <tuple>

#include "expect.h"
#include "flat_text.h"
#include "text_match.h"

namespace {

using Strings = std::vector<std::string>;
using Pairs = std::vector<std::pair<int, int>>;

std::string flat(const std::string& text) {
  std::string flattened;
  const size_t size = codeact::flatten(text, flattened);
  return flattened.substr(0, size);
}

void test_flatten() {
  EXPECT(flat("").empty());
  EXPECT(flat(" \t\n\v\f\r\x1c\x1d\x1e\x1f ").empty());
  EXPECT(flat("  Return  X_1\r\n\tPLUS  ") == "return x_1 plus");
  EXPECT(flat("a"
              "\xC2\x85\xC2\xA0\xE1\x9A\x80\xE2\x80\x80\xE2\x80\x8A\xE2\x80\xA8\xE2\x80\xA9"
              "b") == "a b");
  EXPECT(flat("a\xE2\x80\xAF\xE2\x81\x9F\xE3\x80\x80 b") == "a b");
  // Neighbours of those, letters with the same lead bytes, and text cut in a character.
  EXPECT(flat("a\xE2\x80\x8B"
              "b\xC3\xA9\xC2\xA1") ==
         "a\xE2\x80\x8B"
         "b\xC3\xA9\xC2\xA1");
  EXPECT(flat("a\xE2\x80") == "a\xE2\x80");
  EXPECT(flat("a\xC2") == "a\xC2");
}

std::vector<uint64_t> words(const std::string& text) {
  std::string flattened;
  std::vector<uint64_t> hashes;
  const size_t size = codeact::flatten(text, flattened);
  codeact::hash_words(flattened.data(), size, hashes);
  return hashes;
}

// Words that begin, end and cross blocks of 64 bytes.
void test_words() {
  EXPECT(words("").empty() && words("+ (-)").empty());
  EXPECT(words("Ab_9 c") == (std::vector<uint64_t>{words("ab_9")[0], words("c")[0]}));
  for (size_t before = 0; before < 140; ++before) {
    for (const size_t length : {1, 7, 8, 9, 16, 17, 63, 64, 65, 130}) {
      const std::string word(length, 'w');
      const auto found = words(std::string(before, '(') + word + "-x");
      EXPECT(found.size() == 2 && found[0] == words(word)[0] && found[1] == words("x")[0]);
    }
  }
  std::set<uint64_t> different;
  for (size_t length = 1; length < 70; ++length)
    different.insert(words(std::string(length, 'a'))[0]);
  EXPECT(different.size() == 69);
}

codeact::TextMatches find(const Strings& patterns, const Strings& documents, int ngram,
                          const std::vector<int32_t>& needed, const Strings& texts, int threads) {
  const codeact::TextIndex index({patterns.begin(), patterns.end()},
                                 {documents.begin(), documents.end()}, ngram);
  return index.find({texts.begin(), texts.end()}, needed.data(), threads);
}

Pairs found(const Strings& patterns, const Strings& texts, int threads = 1) {
  Pairs pairs;
  for (const auto& hit : find(patterns, {}, 1, {}, texts, threads).found) {
    pairs.emplace_back(hit.text, hit.pattern);
  }
  return pairs;
}

void test_patterns_at_the_edges() {
  EXPECT((found({"a", "abcdefg", "abcdefgh", "abcdefghi"}, {"abcdefghi", "bcdefghi", "", "A"}) ==
          Pairs{{0, 0}, {0, 1}, {0, 2}, {0, 3}, {3, 0}}));
  EXPECT((found({"return x", "return x"}, {"  Return\nX", "return"}) == Pairs{{0, 0}, {0, 1}}));
  EXPECT(found({}, {"text"}).empty() && found({"pattern"}, {}).empty());
  EXPECT(refuses([] { found({"a", " \n"}, {}); }, "patterns[1] must hold more than white space"));
}

// Texts over two letters, where anchors repeat, against std::string::find.
void test_against_find() {
  std::mt19937 draw(0);
  const auto text = [&](size_t size) {
    std::string made(size, 'a');
    for (char& letter : made) letter = "aab "[draw() % 4];
    return "b" + made + "b";
  };
  Strings patterns, texts;
  for (size_t i = 0; i < 60; ++i) patterns.push_back(flat(text(i % 20)));
  for (size_t i = 0; i < 300; ++i) texts.push_back(text(draw() % 400));
  Pairs expected;
  for (size_t i = 0; i < texts.size(); ++i) {
    for (size_t j = 0; j < patterns.size(); ++j) {
      if (flat(texts[i]).find(patterns[j]) != std::string::npos) expected.emplace_back(i, j);
    }
  }
  EXPECT(expected.size() > 1000);
  EXPECT(found(patterns, texts, 1) == expected);
  EXPECT(found(patterns, texts, 3) == expected);
}

void test_overlaps() {
  const Strings documents{"a b c d", "b c d x", "a b", "b c b c b c"};
  EXPECT((codeact::TextIndex({}, {documents.begin(), documents.end()}, 2).num_ngrams() ==
          std::vector<int32_t>{3, 3, 1, 2}));
  const Strings texts{"A (b) c", "b c, b c, b c", "a", "d x a b"};
  std::vector<std::tuple<int, int, int>> rows;
  for (const auto& hit : find({}, documents, 2, {1, 1, 2, 2}, texts, 2).overlaps) {
    rows.emplace_back(hit.text, hit.document, hit.shared);
  }
  EXPECT(
      (rows == std::vector<std::tuple<int, int, int>>{
                   {0, 0, 2}, {0, 1, 1}, {1, 0, 1}, {1, 1, 1}, {1, 3, 2}, {3, 0, 1}, {3, 1, 1}}));
}

}  // namespace

void test_text_match() {
  test_flatten();
  test_words();
  test_patterns_at_the_edges();
  test_against_find();
  test_overlaps();
}
