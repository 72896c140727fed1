// The lines of an ARPA file: a cursor, numbers, and errors that name the line.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "arpa.h"

namespace fastctc {

inline bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

inline bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t k) { return uint8_t(i + k < text.size() ? text[i + k] : 0); };
    const uint8_t lead = byte(0), second = byte(1);
    const int more = lead < 0x80 ? 0 : lead < 0xc2 ? -1 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : -1;
    if (more < 0) return false;
    for (int k = 1; k <= more; ++k) {
      if (byte(size_t(k)) >> 6 != 2) return false;
    }
    if (lead == 0xe0 && second < 0xa0) return false;   // longer than it needs to be
    if (lead == 0xed && second >= 0xa0) return false;  // a surrogate
    if (lead == 0xf0 && second < 0x90) return false;
    if (lead == 0xf4 && second >= 0x90) return false;  // beyond U+10FFFF
    i += size_t(more) + 1;
  }
  return true;
}

// The text in quotes, for an error message: printable, valid UTF-8, not long.
inline std::string quoted(std::string_view text) {
  constexpr size_t kLongest = 60;
  const bool is_long = text.size() > kLongest;
  if (is_long) text = text.substr(0, kLongest);
  for (int i = 0; is_long && i < 3 && !is_utf8(text); ++i) text.remove_suffix(1);  // not within a character
  const bool valid = is_utf8(text);
  std::string result = "\"";
  for (const char c : text) {
    if (uint8_t(c) < 0x20 || c == 0x7f || (!valid && uint8_t(c) >= 0x80)) {
      const char* const digits = "0123456789abcdef";
      result += {'\\', 'x', digits[uint8_t(c) >> 4], digits[uint8_t(c) & 15]};
    } else {
      result += c;
    }
  }
  return result + (is_long ? "...\"" : "\"");
}

// Parses the whole of [begin, end) as a decimal number: the nearest double, the same on every machine and in every
// locale. "inf", "nan" and what from_chars() accepts beside them count as numbers.
inline bool parse_number(const char* begin, const char* end, double& value) {
  static constexpr double kPowers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                       1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const char* p = begin;
  const bool negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) ++p;
  const char* const digits = p;
  uint64_t mantissa = 0;
  const auto skip_digits = [&] {
    const char* const first = p;
    for (; p < end && unsigned(*p - '0') < 10; ++p) mantissa = 10 * mantissa + uint64_t(*p - '0');
    return p - first;
  };
  const auto before_point = skip_digits();
  if (p < end && *p == '.') ++p;
  const auto after_point = skip_digits(), count = before_point + after_point;
  // Up to 15 digits and the power of ten are doubles, so one division rounds correctly.
  if (p == end && 0 < count && count <= 15) {
    value = double(mantissa) / kPowers[after_point];
    value = negative ? -value : value;
    return true;
  }
  if (digits < end && (*digits == '-' || *digits == '+')) return false;
  const auto [stop, error] = std::from_chars(digits, end, value);
  if (error != std::errc() || stop != end) return false;
  value = negative ? -value : value;
  return true;
}

// A cursor over lines. Blanks at both ends of a line do not count.
class ArpaLines {
 public:
  ArpaLines(const char* text, size_t size) : next_(text), stop_(text + size) {}

  // Moves on to the next line that is not empty; false at the end of the text.
  bool advance() {
    do {
      if (next_ == stop_) {
        ++number_;
        begin = end = stop_;
        return false;
      }
      begin = next_;
      const void* const newline = memchr(begin, '\n', size_t(stop_ - begin));
      end = newline ? static_cast<const char*>(newline) : stop_;
      next_ = newline ? end + 1 : stop_;
      ++number_;
      while (begin < end && is_blank(*begin)) ++begin;
      while (begin < end && is_blank(end[-1])) --end;
    } while (begin == end);
    return true;
  }
  int64_t number() const { return number_; }
  std::string_view text() const { return {begin, size_t(end - begin)}; }

  [[noreturn]] static void fail_at(int64_t line, const std::string& expected, const std::string& got) {
    throw ArpaError("line " + std::to_string(line) + ": expected " + expected + ", got " + got);
  }
  [[noreturn]] void fail(const std::string& expected, std::string_view got) const {
    fail_at(number_, expected, quoted(got));
  }
  // Where the line itself is not what was expected.
  [[noreturn]] void fail(const std::string& expected) const {
    if (begin == stop_) fail_at(number_, expected, "the end of the file");
    fail(expected, text());
  }

  const char *begin = nullptr, *end = nullptr;  // of the line

 private:
  const char* next_;
  const char* const stop_;
  int64_t number_ = 0;
};

}  // namespace fastctc
