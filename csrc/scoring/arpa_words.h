// The words of an n-gram model and their labels.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
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
  int32_t find(std::string_view word) const {
    const uint64_t start = first_bytes(word);
    return table_[slot(word, start, hash(word, start))].label;
  }
  // The label of a new word; kAbsent if it is there already.
  int32_t add(std::string_view word) {
    if (4 * size_t(size()) >= 3 * table_.size()) grow();
    const uint64_t start = first_bytes(word);
    Entry& entry = table_[slot(word, start, hash(word, start))];
    if (entry.label != kAbsent) return kAbsent;
    entry = {start, uint32_t(word.size()), size()};
    text_.append(word).push_back('\n');
    begin_.push_back(text_.size());
    return entry.label;
  }
  // All words, each followed by '\n'.
  std::string take_text() { return std::move(text_); }

 private:
  static constexpr size_t kInEntry = 8;
  struct Entry {
    uint64_t start = 0;   // the first bytes of the word; a word of up to 8 is compared without reading text_
    uint32_t length = 0;  // in bytes
    int32_t label = kAbsent;
  };
  // Up to 8 bytes, then zeros.
  static uint64_t first_bytes(std::string_view word) {
    const size_t n = word.size();
    if (n >= 8) return load<uint64_t>(word.data());
    if (n >= 4) return load<uint32_t>(word.data()) | uint64_t(load<uint32_t>(word.data() + n - 4)) << (8 * (n - 4));
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; ++i) bytes |= uint64_t(uint8_t(word[i])) << (8 * i);
    return bytes;
  }
  template <class T>
  static T load(const char* p) {
    T value;
    memcpy(&value, p, sizeof value);
    return value;
  }
  static uint64_t hash(std::string_view word, uint64_t start) {
    uint64_t h = mix(start ^ word.size() * 0x9e3779b97f4a7c15u);
    for (size_t i = kInEntry; i < word.size(); i += 8) h = mix(h ^ first_bytes(word.substr(i)));
    return h;
  }
  static uint64_t mix(uint64_t h) {
    h *= 0xff51afd7ed558ccdu;
    h = (h ^ h >> 32) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
  }
  // Where the word stands in the table, or would.
  size_t slot(std::string_view word, uint64_t start, uint64_t h) const {
    size_t i = size_t(h) & (table_.size() - 1);
    while (table_[i].label != kAbsent && !(table_[i].start == start && table_[i].length == word.size() &&
                                           (word.size() <= kInEntry || (*this)[table_[i].label] == word))) {
      i = (i + 1) & (table_.size() - 1);
    }
    return i;
  }
  void grow() {
    std::vector<Entry> larger(2 * table_.size());
    for (const Entry& entry : table_) {
      if (entry.label == kAbsent) continue;
      size_t i = size_t(hash((*this)[entry.label], entry.start)) & (larger.size() - 1);
      while (larger[i].label != kAbsent) i = (i + 1) & (larger.size() - 1);
      larger[i] = entry;
    }
    table_ = std::move(larger);
  }

  std::string text_;
  std::vector<size_t> begin_{0};  // of each word in text_, and where the next will begin
  std::vector<Entry> table_;
};

}  // namespace fastctc
