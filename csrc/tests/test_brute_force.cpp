// The oracle against numbers computed by hand.
#include "brute_force.h"

#include "check.h"

using namespace fastctc::testing;

namespace {
std::vector<double> logs(std::vector<double> probs) {
  for (double& p : probs) p = std::log(p);
  return probs;
}
}  // namespace

TEST(collapse_merges_repeats_before_it_removes_blanks) {
  CHECK(collapse({0, 1, 1, 0, 1, 2, 2, 0}, 0) == (Labeling{1, 1, 2}));
  CHECK(collapse({2, 2, 0}, 2) == (Labeling{0}));
  CHECK(collapse({}, 0).empty());
}

// Two frames, blank 0. P("1") = .6*.5 + .6*.5 + .4*.5 over the paths 11, 1-, -1.
TEST(posteriors_by_hand) {
  const auto x = logs({.4, .6, .5, .5});
  const auto p = posteriors(x, 2, 2, {1}, 0);
  CHECK_NEAR(p.log_prob, std::log(.8), 1e-15);
  CHECK_NEAR(p.gamma[0], .2 / .8, 1e-15);
  CHECK_NEAR(p.gamma[1], .6 / .8, 1e-15);
  CHECK_NEAR(p.gamma[2], .3 / .8, 1e-15);
  CHECK_NEAR(p.gamma[3], .5 / .8, 1e-15);
}

TEST(a_repeated_label_needs_a_blank) {
  CHECK(posteriors(logs({.4, .6, .5, .5}), 2, 2, {1, 1}, 0).log_prob == kMinusInfinity);
  CHECK_NEAR(posteriors(logs({.4, .6, .5, .5, .1, .9}), 3, 2, {1, 1}, 0).log_prob, std::log(.6 * .5 * .9), 1e-15);
}

TEST(empty_input_and_empty_target) {
  CHECK(posteriors({}, 0, 3, {}, 0).log_prob == 0);
  CHECK(posteriors({}, 0, 3, {1}, 0).log_prob == kMinusInfinity);
  CHECK_NEAR(posteriors(logs({.4, .6, .5, .5}), 2, 2, {}, 0).log_prob, std::log(.2), 1e-15);
}

TEST(labelings_sum_to_one_and_agree_with_posteriors) {
  const auto x = logs({.1, .2, .7, .3, .3, .4, .25, .5, .25, .6, .3, .1});
  double total = 0;
  for (const auto& [labels, log_prob] : all_labelings(x, 4, 3, 2)) {
    total += std::exp(log_prob);
    CHECK_NEAR(posteriors(x, 4, 3, labels, 2).log_prob, log_prob, 1e-14);
  }
  CHECK_NEAR(total, 1, 1e-14);
}

TEST(paths_of_states_are_the_paths_of_classes_where_no_label_is_the_blank) {
  const auto x = logs({.1, .2, .7, .3, .3, .4, .25, .5, .25, .6, .3, .1});
  for (const auto& [labels, log_prob] : all_labelings(x, 4, 3, 2)) {
    const Posteriors expected = posteriors(x, 4, 3, labels, 2, 0.2);
    const Posteriors found = StatePaths(x, 4, 3, labels, 2, 0.2).result();
    CHECK_NEAR(found.log_prob, expected.log_prob, 1e-14);
    for (size_t i = 0; i < x.size(); ++i) CHECK_NEAR(found.gamma[i], expected.gamma[i], 1e-14);
  }
}

// Two frames, and a label that is the blank: it is in the first, in the second, or in both.
TEST(a_label_that_equals_the_blank_by_hand) {
  const Posteriors found = StatePaths(logs({.4, .6, .5, .5}), 2, 2, {0}, 0).result();
  CHECK_NEAR(found.log_prob, std::log(3 * .4 * .5), 1e-15);
  CHECK_NEAR(found.gamma[0], 1, 1e-15);
}

TEST(greedy_takes_the_lowest_of_equals) {
  const auto best = greedy(logs({.4, .6, .5, .5}), 2, 2, 0);
  CHECK(best.path == (Path{1, 0}) && best.labels == (Labeling{1}));
  CHECK_NEAR(best.log_prob, std::log(.3), 1e-15);
}

TEST_MAIN()
