// The words of an n-gram model and their labels.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace fastctc {

class ArpaWords {
 public:
  static constexpr int32_t kAbsent = -1;

  ArpaWords() : table_(1024) {}

  int32_t size() const { return int32_t(begin_.size() - 1); }
  std::string_view operator[](int32_t label) const {
    const size_t begin = begin_[size_t(label)];
    return {text_.data() + begin, begin_[size_t(label) + 1] - begin - 1};
  }
  int32_t find(std::string_view word) const { return table_[slot(word, hash(word))].label; }
  // The label of a new word; kAbsent if it is there already.
  int32_t add(std::string_view word) {
    if (4 * size_t(size()) >= 3 * table_.size()) grow();
    const uint64_t h = hash(word);
    Entry& entry = table_[slot(word, h)];
    if (entry.label != kAbsent) return kAbsent;
    entry = {uint32_t(h >> 32), size()};
    text_.append(word).push_back('\n');
    begin_.push_back(text_.size());
    return entry.label;
  }
  // All words, each followed by '\n'.
  std::string take_text() { return std::move(text_); }

 private:
  static uint64_t hash(std::string_view word) {
    uint64_t h = word.size() * 0x9e3779b97f4a7c15u;
    const char* p = word.data();
    size_t left = word.size();
    for (; left >= 8; left -= 8, p += 8) {
      uint64_t eight;
      memcpy(&eight, p, 8);
      h = mix(h ^ eight);
    }
    uint64_t rest = 0;
    for (size_t i = 0; i < left; ++i) rest = rest << 8 | uint8_t(p[i]);
    return mix(h ^ rest);
  }
  static uint64_t mix(uint64_t h) {
    h *= 0xff51afd7ed558ccdu;
    h = (h ^ h >> 32) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
  }
  // Where the word stands in the table, or would.
  size_t slot(std::string_view word, uint64_t h) const {
    size_t i = size_t(h) & (table_.size() - 1);
    while (table_[i].label != kAbsent && !(table_[i].hash == h >> 32 && (*this)[table_[i].label] == word)) {
      i = (i + 1) & (table_.size() - 1);
    }
    return i;
  }
  void grow() {
    const size_t larger = 2 * table_.size();
    table_.assign(larger, {});
    for (int32_t label = 0; label < size(); ++label) {
      const uint64_t h = hash((*this)[label]);
      size_t i = size_t(h) & (larger - 1);
      while (table_[i].label != kAbsent) i = (i + 1) & (larger - 1);
      table_[i] = {uint32_t(h >> 32), label};
    }
  }

  struct Entry {
    uint32_t hash = 0;  // the upper half; the lower chooses the place
    int32_t label = kAbsent;
  };
  std::string text_;
  std::vector<size_t> begin_{0};  // of each word in text_, and where the next will begin
  std::vector<Entry> table_;
};

}  // namespace fastctc
