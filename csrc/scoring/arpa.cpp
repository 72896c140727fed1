#include "arpa.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "arpa_lines.h"
#include "arpa_words.h"

namespace fastctc {
namespace {

constexpr double kLn10 = 2.302585092994045684;
constexpr int32_t kAbsent = ArpaWords::kAbsent;

// The n-grams of one order, in the end sorted by context and word. A context is the place of an n-gram one word shorter
// among those of its order.
struct NgramTable {
  std::vector<int32_t> context, word;  // context: empty for unigrams, which are in the order of labels
  std::vector<float> weight, backoff;  // natural logarithms; backoff: empty for the highest order
  std::vector<int32_t> first;          // the n-grams of context c are [first[c], first[c + 1]); empty for unigrams

  int32_t size() const { return int32_t(word.size()); }
  int32_t context_of(int32_t place) const { return context.empty() ? 0 : context[size_t(place)]; }
  int32_t find(int32_t c, int32_t label) const {
    if (first.empty()) return label;
    const auto begin = word.begin() + first[size_t(c)], end = word.begin() + first[size_t(c) + 1];
    const auto found = std::lower_bound(begin, end, label);
    return found != end && *found == label ? int32_t(found - word.begin()) : kAbsent;
  }
};

// Of each value below `values`: where it begins when `numbers` are sorted; at last their count.
std::vector<int32_t> starts(const std::vector<int32_t>& numbers, size_t values) {
  std::vector<int32_t> result(values + 1, 0);
  for (const int32_t number : numbers) ++result[size_t(number) + 1];
  std::partial_sum(result.begin(), result.end(), result.begin());
  return result;
}

template <class T>
std::vector<T> picked(const std::vector<T>& values, const std::vector<uint32_t>& places) {
  std::vector<T> result(places.size());
  for (size_t i = 0; i < places.size(); ++i) result[i] = values[places[i]];
  return result;
}

class ArpaReader {
 public:
  ArpaReader(const char* text, size_t size, double missing_unknown)
      : lines_(text, size), text_(text), size_(size), missing_unknown_(missing_unknown) {}
  NgramAutomaton read();

 private:
  struct Count {
    int64_t ngrams, line;
  };
  void read_header();
  void read_count();
  void expect_section(int order);
  void read_ngrams(int order);
  void read_ngram(int order);
  const char* read_words(int order, const char* p);
  int32_t label_of(int order, std::string_view word);
  double read_logarithm(const char* begin, const char* end, const char* what) const;
  void read_backoff(int order, const char* p);
  void add_unknown();
  void sort(int order);
  int64_t line_of(int order, int64_t place) const;
  std::string next_section(int order) const;
  std::string name(int order) const { return "\\" + std::to_string(order) + "-grams:"; }
  int orders() const { return int(counts_.size()); }

  ArpaLines lines_;
  const char* const text_;
  const size_t size_;
  const double missing_unknown_;
  ArpaWords words_;
  std::vector<Count> counts_;
  std::vector<NgramTable> tables_;     // by order - 1
  std::vector<int64_t> section_line_;  // of the line "\n-grams:", by order - 1
  // The words of the line before and their place among the n-grams of 1, 2, ... words: n-grams with a common beginning
  // stand together.
  std::string_view last_[kLargestOrder];
  int32_t label_[kLargestOrder], place_[kLargestOrder];
  bool sorted_ = true;
};

void ArpaReader::read_header() {
  const char* const kBinaries[][2] = {{"mmap lm http://kheafield.com/code", "a KenLM binary"},
                                      {"Trie Language Model", "a binary model of PocketSphinx"}};
  for (const auto& [magic, kind] : kBinaries) {
    if (std::string_view(text_, size_).substr(0, strlen(magic)) == magic) {
      ArpaLines::fail_at(1, "an ARPA file, the text from which binary models are made", kind);
    }
  }
  bool any = false;
  while ((any = lines_.advance()) && lines_.text() != "\\data\\") {
  }
  if (!any) lines_.fail("a line \\data\\, with which the model of an ARPA file begins");
  while (lines_.advance() && *lines_.begin != '\\') read_count();
  if (counts_.empty()) lines_.fail("\"ngram 1=\" and the number of 1-grams");
}

void ArpaReader::read_count() {
  const int order = orders() + 1;
  const std::string start = "ngram " + std::to_string(order) + "=", text(lines_.text());
  if (order > kLargestOrder) lines_.fail("no more than " + std::to_string(kLargestOrder) + " orders");
  const std::string expected = "\"" + start + "\" and a number of n-grams" + (order > 1 ? " or \\1-grams:" : "");
  if (text.compare(0, start.size(), start) != 0) lines_.fail(expected);
  const char *p = text.data() + start.size(), *const end = text.data() + text.size();
  while (p < end && is_blank(*p)) ++p;
  int64_t count = 0;
  const auto [stop, error] = std::from_chars(p, end, count);
  if (error != std::errc() || stop != end || count < 0) lines_.fail(expected);
  if (count > std::numeric_limits<int32_t>::max()) lines_.fail("fewer than 2^31 n-grams");
  counts_.push_back({count, lines_.number()});
}

std::string ArpaReader::next_section(int order) const { return order < orders() ? name(order + 1) : "\\end\\"; }

void ArpaReader::expect_section(int order) {
  const std::string expected = order <= orders() ? name(order) : "\\end\\";
  if (lines_.begin == lines_.end || lines_.text() != expected) lines_.fail(expected);
}

void ArpaReader::read_ngrams(int order) {
  expect_section(order);
  section_line_.push_back(lines_.number());
  tables_.emplace_back();
  NgramTable& table = tables_.back();
  // A wrong count reserves no more than the file has room for.
  const size_t count = size_t(counts_[size_t(order) - 1].ngrams), room = std::min(count, size_ / 4 + 1);
  if (order > 1) table.context.reserve(room);
  table.word.reserve(room);
  table.weight.reserve(room);
  if (order < orders()) table.backoff.reserve(room);
  sorted_ = true;
  for (auto& word : last_) word = {};
  while (lines_.advance() && *lines_.begin != '\\') {
    if (size_t(table.size()) == count) {
      lines_.fail(next_section(order) + " after " + std::to_string(count) + " " + std::to_string(order) +
                  "-grams (line " + std::to_string(counts_[size_t(order) - 1].line) + ")");
    }
    read_ngram(order);
  }
  if (size_t(table.size()) < count) {
    ArpaLines::fail_at(lines_.number(),
                       std::to_string(count) + " " + std::to_string(order) + "-grams (line " +
                           std::to_string(counts_[size_t(order) - 1].line) + ")",
                       std::to_string(table.size()));
  }
  if (order == 1) add_unknown();
  sort(order);
}

// The line: log10 P, the words, and below the highest order log10 of the backoff weight or nothing.
void ArpaReader::read_ngram(int order) {
  const char* p = lines_.begin;
  while (p < lines_.end && !is_blank(*p)) ++p;
  const double log10_p = read_logarithm(lines_.begin, p, "a log10 probability");
  if (log10_p > 0) lines_.fail("a log10 probability of at most 0", {lines_.begin, size_t(p - lines_.begin)});
  p = read_words(order, p);
  NgramTable& table = tables_.back();
  const int32_t word = label_[order - 1];
  if (order > 1) {
    const int32_t context = place_[order - 2];
    if (!table.word.empty()) {
      const int32_t before = table.context.back();
      sorted_ = sorted_ && (before < context || (before == context && table.word.back() < word));
    }
    table.context.push_back(context);
  }
  table.word.push_back(word);
  table.weight.push_back(float(kLn10 * log10_p));
  read_backoff(order, p);
}

// Sets label_ and, up to order - 1 words, place_. Returns the end of the words.
const char* ArpaReader::read_words(int order, const char* p) {
  bool same = order > 1;
  while (p < lines_.end && is_blank(*p)) ++p;
  const char* const first = p;
  for (int i = 0; i < order; ++i) {
    while (p < lines_.end && is_blank(*p)) ++p;
    if (p == lines_.end) lines_.fail(std::to_string(order) + " words after the probability");
    const char* const begin = p;
    const size_t length = last_[i].size();
    // Most often the word of the line before.
    if (order > 1 && length > 0 && length <= size_t(lines_.end - p) && memcmp(p, last_[i].data(), length) == 0 &&
        (p + length == lines_.end || is_blank(p[length]))) {
      p += length;
    } else {
      while (p < lines_.end && !is_blank(*p)) ++p;
      label_[i] = label_of(order, {begin, size_t(p - begin)});
      last_[i] = {begin, size_t(p - begin)};
      same = false;
    }
    if (same && i > 0) continue;
    if (i + 1 == order) break;
    place_[i] = i == 0 ? label_[0] : tables_[size_t(i)].find(place_[i - 1], label_[i]);
    if (place_[i] == kAbsent) {
      lines_.fail("a context that is one of the " + std::to_string(i + 1) + "-grams", {first, size_t(p - first)});
    }
  }
  return p;
}

int32_t ArpaReader::label_of(int order, std::string_view word) {
  if (order > 1) {
    const int32_t label = words_.find(word);
    if (label == kAbsent) lines_.fail("words that are 1-grams", word);
    return label;
  }
  if (!is_utf8(word)) lines_.fail("a word in UTF-8", word);
  const int32_t label = words_.add(word);
  if (label == kAbsent) lines_.fail("each word once among the 1-grams", word);
  return label;
}

double ArpaReader::read_logarithm(const char* begin, const char* end, const char* what) const {
  double value;
  const bool is_number = parse_number(begin, end, value) && !std::isnan(value);
  if (!is_number) lines_.fail(what, {begin, size_t(end - begin)});
  return value;
}

void ArpaReader::read_backoff(int order, const char* p) {
  while (p < lines_.end && is_blank(*p)) ++p;
  double log10_backoff = 0;
  if (p < lines_.end) {
    const char* const begin = p;
    while (p < lines_.end && !is_blank(*p)) ++p;
    const char* const what = "a finite log10 backoff weight or the end of the line";
    log10_backoff = read_logarithm(begin, p, what);
    if (!std::isfinite(float(kLn10 * log10_backoff))) lines_.fail(what, {begin, size_t(p - begin)});
    if (order == orders() && log10_backoff != 0) {
      lines_.fail("no backoff weight in the highest order", {begin, size_t(p - begin)});
    }
    while (p < lines_.end && is_blank(*p)) ++p;
    if (p < lines_.end) lines_.fail("the end of the line", {p, size_t(lines_.end - p)});
  }
  if (order < orders()) tables_.back().backoff.push_back(float(kLn10 * log10_backoff));
}

void ArpaReader::add_unknown() {
  if (words_.find("<unk>") != kAbsent || words_.find("<UNK>") != kAbsent) return;
  NgramTable& table = tables_[0];
  table.word.push_back(words_.add("<unk>"));
  table.weight.push_back(float(kLn10 * missing_unknown_));
  if (orders() > 1) table.backoff.push_back(0);
}

// Sorts the n-grams of an order by context and word, and finds where those of each context begin.
void ArpaReader::sort(int order) {
  NgramTable& table = tables_[size_t(order) - 1];
  if (order == 1) return;
  table.first = starts(table.context, tables_[size_t(order) - 2].word.size());
  if (sorted_) return;
  const size_t n = table.word.size();
  std::vector<uint32_t> places(n), by_word(n);
  std::iota(by_word.begin(), by_word.end(), 0u);
  if (!std::is_sorted(table.word.begin(), table.word.end())) {
    std::vector<int32_t> to = starts(table.word, size_t(words_.size()));
    for (size_t i = 0; i < n; ++i) by_word[size_t(to[size_t(table.word[i])]++)] = uint32_t(i);
  }
  std::vector<int32_t> to = table.first;
  for (const uint32_t i : by_word) places[size_t(to[size_t(table.context[i])]++)] = i;
  for (size_t i = 1; i < n; ++i) {
    const uint32_t a = places[i - 1], b = places[i];
    if (table.context[a] == table.context[b] && table.word[a] == table.word[b]) {
      ArpaLines::fail_at(line_of(order, b), "each n-gram once",
                         "the n-gram of line " + std::to_string(line_of(order, a)));
    }
  }
  table.context = picked(table.context, places);
  table.word = picked(table.word, places);
  table.weight = picked(table.weight, places);
  if (order < orders()) table.backoff = picked(table.backoff, places);
}

// The line of an n-gram by its place in its section.
int64_t ArpaReader::line_of(int order, int64_t place) const {
  ArpaLines lines(text_, size_);
  while (lines.number() < section_line_[size_t(order) - 1] && lines.advance()) {
  }
  for (int64_t i = 0; i <= place; ++i) lines.advance();
  return lines.number();
}

// The states, by order and then by place: state 0 is the empty context.
class NgramStates {
 public:
  NgramStates(std::vector<NgramTable>& tables, int32_t bos, int32_t eos);
  NgramAutomaton automaton() { return std::move(result_); }

 private:
  struct Arc {
    int32_t next;
    float weight;
  };
  void number_states();
  void link(size_t order);
  void add_arcs(size_t order);
  void add_ends();
  int32_t arc_of(size_t order, int32_t place, int32_t word) const;
  int32_t shorter(int32_t state, int32_t word) const;
  int32_t state_of(size_t order, int32_t place) const { return order == 0 ? 0 : state_[order - 1][size_t(place)]; }
  bool is_arc(int32_t word) const { return word != bos_ && word != eos_; }

  std::vector<NgramTable>& tables_;
  const int32_t bos_, eos_;
  std::vector<std::vector<int32_t>> state_;  // of each n-gram, by order - 1: the state that it is, or -1
  std::vector<std::vector<int32_t>> next_;   // of each n-gram: the longest of its endings that is a state
  std::vector<int32_t> order_, place_;       // of each state: the length of the context and its place
  NgramAutomaton result_;
};

NgramStates::NgramStates(std::vector<NgramTable>& tables, int32_t bos, int32_t eos)
    : tables_(tables), bos_(bos), eos_(eos) {
  number_states();
  for (size_t order = 1; order <= tables_.size(); ++order) link(order);
  if (eos_ != kAbsent) add_ends();
  for (size_t order = 1; order <= tables_.size(); ++order) add_arcs(order);
  result_.first_arc.push_back(int32_t(result_.label.size()));
  if (bos_ != kAbsent) result_.begin = next_[0][size_t(bos_)];
}

void NgramStates::number_states() {
  order_ = place_ = {0};
  result_.backoff = {0};
  for (size_t order = 1; order < tables_.size(); ++order) {
    const NgramTable &table = tables_[order - 1], &longer = tables_[order];
    std::vector<int32_t> state(table.word.size(), kAbsent);
    for (size_t i = 0; i < state.size(); ++i) {
      if (longer.first[i] == longer.first[i + 1] && table.backoff[i] == 0) continue;
      state[i] = int32_t(order_.size());
      order_.push_back(int32_t(order));
      place_.push_back(int32_t(i));
      result_.backoff.push_back(table.backoff[i]);
    }
    state_.push_back(std::move(state));
  }
  state_.emplace_back(tables_.back().word.size(), kAbsent);
  result_.failure.assign(order_.size(), kAbsent);
}

// The n-gram of the word after a context; -1 if there is none.
int32_t NgramStates::arc_of(size_t order, int32_t place, int32_t word) const {
  return tables_[order].find(place, word);
}

// The longest state that the word leads to from a context shorter than `state`. A context with the word as a successor
// is a state, so all of them are on the way of failure arcs.
int32_t NgramStates::shorter(int32_t state, int32_t word) const {
  for (int32_t s = result_.failure[size_t(state)];; s = result_.failure[size_t(s)]) {
    const size_t order = size_t(order_[size_t(s)]);
    const int32_t arc = arc_of(order, place_[size_t(s)], word);
    if (arc != kAbsent) return next_[order][size_t(arc)];
  }
}

void NgramStates::link(size_t order) {
  const NgramTable& table = tables_[order - 1];
  next_.emplace_back(table.word.size());
  for (int32_t i = 0; i < table.size(); ++i) {
    const int32_t context = state_of(order - 1, table.context_of(i)), state = state_[order - 1][size_t(i)];
    const int32_t ending = context == 0 ? 0 : shorter(context, table.word[size_t(i)]);
    next_[order - 1][size_t(i)] = state == kAbsent ? ending : state;
    if (state != kAbsent) result_.failure[size_t(state)] = ending;
  }
}

void NgramStates::add_ends() {
  result_.end.resize(order_.size());
  for (size_t s = 0; s < order_.size(); ++s) {  // a failure arc leads to a state that comes before
    const size_t order = size_t(order_[s]);
    const int32_t arc = arc_of(order, place_[s], eos_);
    result_.end[s] = arc != kAbsent ? tables_[order].weight[size_t(arc)]
                                    : result_.backoff[s] + result_.end[size_t(result_.failure[s])];
  }
}

// The n-grams of an order, less <s> and </s>, are the arcs of its contexts.
void NgramStates::add_arcs(size_t order) {
  NgramTable& table = tables_[order - 1];
  if (order == 1) {
    size_t arcs = 0;
    for (const NgramTable& each : tables_) arcs += each.word.size();
    result_.label.reserve(arcs);
    result_.next.reserve(arcs);
    result_.weight.reserve(arcs);
    result_.first_arc.reserve(order_.size() + 1);
  }
  int32_t i = 0;
  for (size_t s = result_.first_arc.size(); s < order_.size() && size_t(order_[s]) == order - 1; ++s) {
    result_.first_arc.push_back(int32_t(result_.label.size()));
    const int32_t end = order == 1 ? table.size() : table.first[size_t(place_[s]) + 1];
    for (i = order == 1 ? 0 : table.first[size_t(place_[s])]; i < end; ++i) {
      if (!is_arc(table.word[size_t(i)])) continue;
      result_.label.push_back(table.word[size_t(i)]);
      result_.next.push_back(next_[order - 1][size_t(i)]);
      result_.weight.push_back(table.weight[size_t(i)]);
    }
  }
  table = {};
}

NgramAutomaton ArpaReader::read() {
  read_header();
  for (int order = 1; order <= orders(); ++order) read_ngrams(order);
  expect_section(orders() + 1);
  int64_t ngrams = 0;
  for (const NgramTable& table : tables_) ngrams += table.size();
  if (ngrams >= std::numeric_limits<int32_t>::max()) {
    ArpaLines::fail_at(counts_[0].line, "fewer than 2^31 n-grams in all", std::to_string(ngrams));
  }
  const int32_t unknown = std::max(words_.find("<unk>"), words_.find("<UNK>"));
  NgramAutomaton result = NgramStates(tables_, words_.find("<s>"), words_.find("</s>")).automaton();
  result.unknown = unknown;
  result.words = words_.take_text();
  return result;
}

}  // namespace

NgramAutomaton read_arpa(const char* text, size_t size, double missing_unknown) {
  return ArpaReader(text, size, missing_unknown).read();
}

}  // namespace fastctc
