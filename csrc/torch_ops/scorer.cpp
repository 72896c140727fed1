#include "scorer.h"

namespace fastctc {
namespace {

// Hands out the tensors and the numbers of a scorer one after the other.
class Reader {
 public:
  Reader(const std::vector<Tensor>& tensors, const std::vector<int64_t>& numbers, const Tensor& place)
      : tensors_(tensors), numbers_(numbers), place_(place) {}

  int32_t number() {
    if (next_number_ == numbers_.size()) value_error("scorer_numbers has only ", numbers_.size(), " numbers");
    return int32_t(numbers_[next_number_++]);
  }
  // The values of a tensor, `size` of them; -1: any number.
  template <class T>
  const T* array(ScalarType type, int64_t size) {
    if (next_ == tensors_.size()) value_error("scorer has only ", tensors_.size(), " tensors");
    const Tensor& t = tensors_[next_];
    if (t.scalar_type() != type || t.dim() != 1 || (size >= 0 && t.size(0) != size)) {
      value_error("scorer[", next_, "] is no vector of ", size, " values of its type");
    }
    check_place(t, "scorer", place_);
    ++next_;
    return static_cast<const T*>(t.const_data_ptr());
  }
  const int32_t* integers(int64_t size) { return array<int32_t>(ScalarType::Int, size); }
  const float* floats(int64_t size) { return array<float>(ScalarType::Float, size); }
  const double* doubles(int64_t size) { return array<double>(ScalarType::Double, size); }
  int64_t size() const { return next_ < tensors_.size() && tensors_[next_].dim() == 1 ? tensors_[next_].size(0) : 0; }
  bool at_end() const { return next_ == tensors_.size(); }

 private:
  const std::vector<Tensor>& tensors_;
  const std::vector<int64_t>& numbers_;
  const Tensor& place_;
  size_t next_ = 0, next_number_ = 0;
};

AutomatonView read_automaton(Reader& reader) {
  AutomatonView a{};
  a.start = reader.number();
  a.dense_state = reader.number();
  const int64_t states = reader.size() - 1;
  a.first_arc = reader.integers(states + 1);
  const int64_t arcs = reader.size();
  a.label = reader.integers(arcs);
  a.next_state = reader.integers(arcs);
  a.weight = reader.floats(arcs);
  a.failure_state = reader.integers(states);
  a.failure_weight = reader.floats(states);
  a.final_weight = reader.floats(states);
  a.largest_weight = reader.floats(states);
  a.dense_labels = int32_t(reader.size());
  a.dense = reader.integers(a.dense_labels);
  if (a.start < 0 || a.start >= states || a.dense_state >= states) value_error("scorer_numbers has no valid state");
  return a;
}

LexiconView read_lexicon(Reader& reader, double unknown_word) {
  LexiconView l{};
  l.boundary = Boundary(reader.number());
  l.separator = reader.number();
  l.unknown_word = unknown_word;
  const int64_t nodes = reader.size() - 1;
  l.first_arc = reader.integers(nodes + 1);
  l.label = reader.integers(nodes - 1);
  l.first_end = reader.integers(nodes + 1);
  const int64_t spellings = reader.size();
  l.word = reader.integers(spellings);
  l.end_value = reader.doubles(spellings);
  l.look_ahead = reader.doubles(nodes);
  l.inner_bound = reader.doubles(nodes);
  l.end_bound = reader.doubles(nodes);
  l.end_value_bound = reader.doubles(nodes);
  l.arc_bound = reader.doubles(nodes);
  l.words = int32_t(reader.size()) - 1;
  l.model_label = reader.integers(l.words + 1);
  l.word_bound = reader.doubles(l.words + 1);
  l.begin_labels = int32_t(reader.size());
  l.begins = reader.array<uint8_t>(ScalarType::Byte, l.begin_labels);
  return l;
}

}  // namespace

Scorer scorer_of(const std::vector<Tensor>& tensors, const std::vector<int64_t>& numbers, double unknown_word,
                 const Tensor& place) {
  Reader reader(tensors, numbers, place);
  Scorer s{};
  s.count = reader.number();
  if (s.count < 1 || s.count > kLargestScorer) {
    value_error("scorer has ", s.count, " automata, but must have 1 to ", kLargestScorer);
  }
  for (int i = 0; i < s.count; ++i) s.automata[i] = read_automaton(reader);
  s.has_lexicon = !reader.at_end();
  if (s.has_lexicon) s.lexicon = read_lexicon(reader, unknown_word);
  return s;
}

}  // namespace fastctc
