#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

#include "bindings.h"
#include "check.h"
#include "text_match.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Texts = std::vector<py::bytes>;  // holds a reference to each, so that views stay good

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr const char* kIndexName = "codeact.TextIndex";

std::vector<std::string_view> views(const Texts& texts, const char* name) {
  std::vector<std::string_view> found;
  found.reserve(texts.size());
  int64_t num_bytes = 0;
  for (const py::bytes& text : texts) {
    found.emplace_back(text);
    num_bytes += static_cast<int64_t>(found.back().size());
  }
  codeact::check(num_bytes <= kInt32Max, name, " must hold at most ", kInt32Max, " bytes, got ",
                 num_bytes);
  return found;
}

// Rows of int32, each one a struct of them.
template <typename Row>
Array<int32_t> rows_of(const std::vector<Row>& rows) {
  constexpr py::ssize_t kWidth = sizeof(Row) / sizeof(int32_t);
  Array<int32_t> array({static_cast<py::ssize_t>(rows.size()), kWidth});
  const auto* const data = reinterpret_cast<const int32_t*>(rows.data());
  std::copy(data, data + rows.size() * kWidth, array.mutable_data());
  return array;
}

py::tuple text_index(const Texts& patterns, const Texts& documents, int64_t ngram) {
  codeact::check(1 <= ngram && ngram <= kInt32Max, "ngram must be from 1 to ", kInt32Max, ", got ",
                 ngram);
  const auto pattern_views = views(patterns, "patterns");
  const auto document_views = views(documents, "documents");
  std::unique_ptr<codeact::TextIndex> index;
  {
    py::gil_scoped_release release;
    index = std::make_unique<codeact::TextIndex>(pattern_views, document_views,
                                                 static_cast<int32_t>(ngram));
  }
  const auto& num_ngrams = index->num_ngrams();
  Array<int32_t> counts(static_cast<py::ssize_t>(num_ngrams.size()), num_ngrams.data());
  py::capsule owner(index.release(), kIndexName,
                    [](void* pointer) { delete static_cast<codeact::TextIndex*>(pointer); });
  return py::make_tuple(std::move(owner), std::move(counts));
}

py::tuple find_texts(const py::capsule& owner, const Texts& texts, const Array<int32_t>& needed,
                     int64_t num_threads) {
  codeact::check(owner.name() != nullptr && std::string_view(owner.name()) == kIndexName,
                 "index must come from text_index");
  const auto& index = *owner.get_pointer<codeact::TextIndex>();
  const auto num_documents = static_cast<py::ssize_t>(index.num_ngrams().size());
  codeact::check(needed.ndim() == 1 && needed.size() == num_documents, "needed must be 1-D with ",
                 num_documents, " items, got ", needed.ndim(), "-D with ", needed.size());
  codeact::check(1 <= num_threads && num_threads <= 1024,
                 "num_threads must be from 1 to 1024, got ", num_threads);
  const auto text_views = views(texts, "texts");
  codeact::TextMatches matches;
  {
    py::gil_scoped_release release;
    matches = index.find(text_views, needed.data(), static_cast<int>(num_threads));
  }
  return py::make_tuple(rows_of(matches.found), rows_of(matches.overlaps));
}

}  // namespace

void def_text(py::module_& m) {
  m.def("text_index", &text_index, py::arg("patterns"), py::arg("documents"), py::arg("ngram"));
  m.def("find_texts", &find_texts, py::arg("index"), py::arg("texts"),
        py::arg("needed").noconvert(), py::arg("num_threads"));
}
