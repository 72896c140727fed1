// The reader of ARPA files: a small model, what is wrong with a file, and files that are damaged at random.
#include "../scoring/arpa.cpp"

#include <cstdlib>
#include <random>

#include "check.h"

using namespace fastctc;

namespace {

const char* const kModel =
    "made by hand\n"
    "\\data\\\n"
    "ngram 1=5\n"
    "ngram 2=4\n"
    "ngram 3=2\n"
    "\n"
    "\\1-grams:\n"
    "-1.5\t<unk>\n"
    "-99\t<s>\t-0.5\n"
    "-0.5\t</s>\n"
    "-0.75\ta\t-0.25\n"
    "-1\tb\n"
    "\n"
    "\\2-grams:\n"
    "-0.25\t<s> a\t-0.125\n"
    "-0.5\ta b\n"
    "-0.625\ta a\t0.5\n"
    "-0.375\tb </s>\n"
    "\n"
    "\\3-grams:\n"
    "-0.0625\t<s> a b\n"
    "-0.03125 a b </s>\n"
    "\n"
    "\\end\\\n";

NgramAutomaton read(const std::string& text) { return read_arpa(text.data(), text.size(), -100); }

// log10 of the weight of the words after <s>, and of </s> after them.
double score(const NgramAutomaton& m, const std::vector<int32_t>& labels) {
  double sum = 0;
  int32_t state = m.begin;
  for (const int32_t label : labels) {
    for (;;) {
      const auto begin = m.label.begin() + m.first_arc[size_t(state)];
      const auto end = m.label.begin() + m.first_arc[size_t(state) + 1];
      const auto found = std::lower_bound(begin, end, label);
      if (found != end && *found == label) {
        sum += m.weight[size_t(found - m.label.begin())];
        state = m.next[size_t(found - m.label.begin())];
        break;
      }
      sum += m.backoff[size_t(state)];
      state = m.failure[size_t(state)];
      CHECK(state >= 0);
    }
  }
  return (sum + m.end[size_t(state)]) / std::log(10.0);
}

// What every automaton holds to, whatever the file was.
void check_automaton(const NgramAutomaton& m) {
  const int32_t states = int32_t(m.failure.size()), arcs = int32_t(m.label.size());
  CHECK(states > 0 && m.first_arc.size() == size_t(states) + 1 && m.backoff.size() == size_t(states));
  CHECK(m.first_arc.front() == 0 && m.first_arc.back() == arcs);
  CHECK(m.next.size() == size_t(arcs) && m.weight.size() == size_t(arcs));
  CHECK(m.end.empty() || m.end.size() == size_t(states));
  CHECK(m.begin >= -1 && m.begin < states && m.unknown >= 0);
  for (int32_t s = 0; s < states; ++s) {
    CHECK(s == 0 ? m.failure[0] == -1 : m.failure[size_t(s)] >= 0 && m.failure[size_t(s)] < s);
    CHECK(m.first_arc[size_t(s)] <= m.first_arc[size_t(s) + 1]);
    CHECK(std::isfinite(m.backoff[size_t(s)]));
    for (int32_t a = m.first_arc[size_t(s)]; a < m.first_arc[size_t(s) + 1]; ++a) {
      CHECK(a == m.first_arc[size_t(s)] || m.label[size_t(a) - 1] < m.label[size_t(a)]);
      CHECK(m.next[size_t(a)] >= 0 && m.next[size_t(a)] < states);
      CHECK(m.weight[size_t(a)] <= 0);
    }
  }
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  CHECK(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST(numbers_are_the_nearest_doubles) {
  std::mt19937 random(1);
  for (int i = 0; i < 100000; ++i) {
    char text[64];
    const double x = std::ldexp(double(int32_t(random())), int(random() % 80) - 70);
    snprintf(text, sizeof text, i % 3 == 0 ? "%.5f" : i % 3 == 1 ? "%.17g" : "%.9g", x);
    double value = 0;
    CHECK(parse_number(text, text + strlen(text), value));
    CHECK(value == std::strtod(text, nullptr));
  }
  double value = 0;
  for (const char* text : {"", ".", "-", "+", "-.", "--1", "+-1", "1x", "1 ", "x", "1e", "1.2.3", "0x10"}) {
    CHECK(!parse_number(text, text + strlen(text), value));
  }
  for (const char* text : {"1.", ".5", "-.5", "+2", "-0", "1e-3", "-inf", "123456789012345678901234567890"}) {
    CHECK(parse_number(text, text + strlen(text), value) && value == std::strtod(text, nullptr));
  }
}

TEST(a_model_by_hand) {
  const NgramAutomaton m = read(kModel);
  check_automaton(m);
  CHECK(m.words == "<unk>\n<s>\n</s>\na\nb\n");
  CHECK(m.unknown == 0);
  // The contexts: none, "<s>", "a", "b", "<s> a", "a b", and "a a" for its backoff weight.
  CHECK(m.failure.size() == 7);
  CHECK(m.label.size() == 3 + 3 + 1);  // 1-grams, 2-grams and 3-grams, less <s> and </s> at their end
  CHECK_NEAR(score(m, {}), -0.5 - 0.5, 1e-6);
  CHECK_NEAR(score(m, {3, 4}), -0.25 - 0.0625 - 0.03125, 1e-6);
  CHECK_NEAR(score(m, {3, 3}), (-0.25) + (-0.125 - 0.625) + (0.5 - 0.25 - 0.5), 1e-6);
  CHECK_NEAR(score(m, {0, 4}), (-0.5 - 1.5) + (-1) + (-0.375), 1e-6);
}

TEST(the_order_of_the_lines_does_not_matter) {
  const std::string shuffled =
      replaced(replaced(kModel, "-0.25\t<s> a\t-0.125\n-0.5\ta b\n", "-0.5\ta b\n-0.25\t<s> a\t-0.125\n"),
               "-0.0625\t<s> a b\n-0.03125 a b </s>\n", "-0.03125 a b </s>\n-0.0625\t<s> a b\n");
  const NgramAutomaton a = read(kModel), b = read(shuffled);
  CHECK(a.label == b.label && a.next == b.next && a.weight == b.weight && a.failure == b.failure);
  CHECK(a.backoff == b.backoff && a.end == b.end && a.first_arc == b.first_arc && a.begin == b.begin);
}

TEST(line_ends_and_the_last_newline_do_not_matter) {
  std::string dos = kModel;
  for (size_t at = 0; (at = dos.find('\n', at)) != std::string::npos; at += 2) dos.replace(at, 1, "\r\n");
  const std::string cut(kModel, strlen(kModel) - 1);
  const NgramAutomaton a = read(kModel), b = read(dos), c = read(cut);
  CHECK(a.words == b.words && a.weight == b.weight && a.next == b.next);
  CHECK(a.words == c.words && a.weight == c.weight && a.next == c.next);
}

TEST(a_missing_unknown_word_is_added) {
  const NgramAutomaton m = read("\\data\\\nngram 1=2\n\\1-grams:\n-1 a\n-2 b\n\\end\\\n");
  CHECK(m.words == "a\nb\n<unk>\n" && m.unknown == 2 && m.begin == -1 && m.end.empty());
  CHECK_NEAR(m.weight[2], -100 * std::log(10.0), 1e-4);
}

// Long function: one table of faults.
TEST(faults_are_named_with_their_lines) {
  const std::string model = kModel;
  const auto faulty = [&](const char* from, const char* to) { read(replaced(model, from, to)); };
  CHECK_THROWS(read(""), "line 1: expected a line \\data\\");
  CHECK_THROWS(read("a\nb\n"), "line 3: expected a line \\data\\");
  CHECK_THROWS(read("mmap lm http://kheafield.com/code format version 5\n"), "got a KenLM binary");
  CHECK_THROWS(read("Trie Language Model"), "got a binary model of PocketSphinx");
  CHECK_THROWS(faulty("ngram 1=5\n", ""), "line 3: expected \"ngram 1=\" and a number of n-grams, got \"ngram 2=4\"");
  CHECK_THROWS(faulty("ngram 2=4", "ngram 2=four"),
               "line 4: expected \"ngram 2=\" and a number of n-grams or \\1-grams:");
  CHECK_THROWS(faulty("ngram 2=4", "ngram 2=-4"), "line 4: expected");
  CHECK_THROWS(faulty("ngram 2=4", "ngram 2=3000000000"), "line 4: expected fewer than 2^31 n-grams");
  CHECK_THROWS(read("\\data\\\nngram 1=1\nngram 2=1\nngram 3=1\nngram 4=1\nngram 5=1\nngram 6=1\nngram 7=1\n"),
               "line 8: expected no more than 6 orders, got \"ngram 7=1\"");
  CHECK_THROWS(faulty("\\2-grams:", "\\3-grams:"), "line 14: expected \\2-grams:, got \"\\3-grams:\"");
  CHECK_THROWS(faulty("\\3-grams:", "\\end\\"), "line 20: expected \\3-grams:, got \"\\end\\\"");
  CHECK_THROWS(faulty("\n\\end\\\n", ""), "expected \\end\\, got the end of the file");
  CHECK_THROWS(faulty("ngram 2=4", "ngram 2=5"), "line 20: expected 5 2-grams (line 4), got 4");
  CHECK_THROWS(faulty("ngram 2=4", "ngram 2=3"), "line 18: expected \\3-grams: after 3 2-grams (line 4), got \"-0.375");
  CHECK_THROWS(faulty("ngram 3=2", "ngram 3=1"), "line 22: expected \\end\\ after 1 3-grams (line 5), got");
  CHECK_THROWS(faulty("-0.75\ta", "x\ta"), "line 11: expected a log10 probability, got \"x\"");
  CHECK_THROWS(faulty("-0.75\ta", "nan\ta"), "line 11: expected a log10 probability, got \"nan\"");
  CHECK_THROWS(faulty("-0.75\ta", "0.75\ta"), "line 11: expected a log10 probability of at most 0, got \"0.75\"");
  CHECK_THROWS(faulty("-0.75\ta", "inf\ta"), "line 11: expected a log10 probability of at most 0, got \"inf\"");
  CHECK_THROWS(faulty("-0.75\ta\t-0.25", "-0.75\ta\tb"), "line 11: expected a finite log10 backoff weight");
  CHECK_THROWS(faulty("-0.75\ta\t-0.25", "-0.75\ta\t-inf"), "line 11: expected a finite log10 backoff weight");
  CHECK_THROWS(faulty("-0.75\ta\t-0.25", "-0.75\ta\t-0.25 1"), "line 11: expected the end of the line, got \"1\"");
  CHECK_THROWS(faulty("-1\tb", "-1\ta"), "line 12: expected each word once among the 1-grams, got \"a\"");
  CHECK_THROWS(faulty("-1\tb", "-1\tb\xff"), "line 12: expected a word in UTF-8, got \"b\\xff\"");
  CHECK_THROWS(faulty("-1\tb", "-1"), "line 12: expected 1 words after the probability, got \"-1\"");
  CHECK_THROWS(faulty("-0.5\ta b\n", "-0.5\ta\n"), "line 16: expected 2 words after the probability");
  CHECK_THROWS(faulty("-0.5\ta b\n", "-0.5\ta c\n"), "line 16: expected words that are 1-grams, got \"c\"");
  CHECK_THROWS(faulty("-0.5\ta b\n", "-0.625\ta a\n"), "line 17: expected each n-gram once, got the n-gram of line 16");
  CHECK_THROWS(faulty("-0.03125 a b </s>", "-0.03125 b a </s>"),
               "line 22: expected a context that is one of the 2-grams, got \"b a\"");
  CHECK_THROWS(faulty("-0.03125 a b </s>", "-0.03125 a b </s> -1"),
               "line 22: expected no backoff weight in the highest order, got \"-1\"");
  CHECK_THROWS(faulty("-0.03125 a b </s>", std::string(200, 'x').c_str()), "...\"");
}

TEST(fuzz_damaged_files) {
  const char* const seconds = std::getenv("FASTCTC_FUZZ_SECONDS");
  const int rounds = 20000 * (seconds ? std::max(1, std::atoi(seconds) / 4) : 1);
  std::mt19937 random(seconds ? std::random_device()() : 7);
  const std::vector<std::string> pieces = {"\n",
                                           "\t",
                                           " ",
                                           "\\",
                                           "-",
                                           "1e9",
                                           "nan",
                                           "-inf",
                                           "a",
                                           "<s>",
                                           "b",
                                           "\\end\\",
                                           "\\2-grams:\n",
                                           "0",
                                           "\r\n",
                                           std::string(1, '\0'),
                                           "\xc3",
                                           "99999999999999999999",
                                           "ngram 1=3\n",
                                           "-1 a b a\n",
                                           "\\data\\\n"};
  int accepted = 0, refused = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string text = kModel;
    for (int edits = 1 + int(random() % 4); edits > 0 && !text.empty(); --edits) {
      const size_t at = random() % text.size(), length = std::min<size_t>(random() % 12, text.size() - at);
      const auto kind = random() % 5;
      if (kind == 0) text.erase(at, length);
      if (kind == 1) text[at] = char(random());
      if (kind == 2) text.insert(at, pieces[random() % pieces.size()]);
      if (kind == 3) text.insert(random() % text.size(), text.substr(at, length));
      if (kind == 4) text.replace(at, length, pieces[random() % pieces.size()]);
    }
    // Memory of exactly this size, so that a sanitizer sees one byte too many.
    const std::vector<char> exact(text.begin(), text.end());
    try {
      check_automaton(read_arpa(exact.data(), exact.size(), -100));
      ++accepted;
    } catch (const ArpaError& error) {
      const std::string message = error.what();
      CHECK(message.rfind("line ", 0) == 0 && message.find(": expected ") != std::string::npos);
      CHECK(is_utf8(message));
      ++refused;
    }
  }
  CHECK(accepted > rounds / 100 && refused > rounds / 100);
}

TEST_MAIN()
