// What the C++ of a translated kernel calls beside arithmetic.h: memory and warp collectives, on a Machine.
#pragma once

#include <array>

#include "arithmetic.h"
#include "machine.h"

// The only name that the library of a kernel shows.
#define FASTCTC_PTX_EXPORT __attribute__((visibility("default")))

namespace fastctc::ptx {

// ---- memory ---------------------------------------------------------------------------------------------------------

template <class T>
inline T load(Machine& m, Space space, uint64_t address, uint32_t line) {
  m.check(space, address, sizeof(T), false, line);
  T value;
  __builtin_memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}
template <class T, size_t count>
inline std::array<T, count> load_vector(Machine& m, Space space, uint64_t address, uint32_t line) {
  m.check(space, address, sizeof(T) * count, false, line);
  std::array<T, count> values;
  __builtin_memcpy(&values, reinterpret_cast<const void*>(address), sizeof values);
  return values;
}
template <class T>
inline void store(Machine& m, Space space, uint64_t address, uint32_t line, T value) {
  m.check(space, address, sizeof(T), true, line);
  __builtin_memcpy(reinterpret_cast<void*>(address), &value, sizeof value);
}
template <class T, size_t count>
inline void store_vector(Machine& m, Space space, uint64_t address, uint32_t line, const std::array<T, count>& values) {
  m.check(space, address, sizeof(T) * count, true, line);
  __builtin_memcpy(reinterpret_cast<void*>(address), &values, sizeof values);
}
inline void fill_with_garbage(unsigned char* memory, size_t bytes) { std::memset(memory, 0xff, bytes); }

// Fibers of one CPU thread change only at collectives, so that reading, changing and writing is atomic. Several CPU
// threads may run kernels, but none of them share memory that kernels write.
template <class T, class Change>
inline T atomic(Machine& m, Space space, uint64_t address, uint32_t line, Change change) {
  const T old = load<T>(m, space, address, line);
  store<T>(m, space, address, line, change(old));
  return old;
}
#define FASTCTC_PTX_ATOMIC(name, changed)                                                 \
  template <class T>                                                                      \
  inline T atomic_##name(Machine& m, Space space, uint64_t address, uint32_t line, T b) { \
    return atomic<T>(m, space, address, line, [=](T a) -> T { return changed; });         \
  }
FASTCTC_PTX_ATOMIC(add, add(a, b))
FASTCTC_PTX_ATOMIC(min, min(a, b))
FASTCTC_PTX_ATOMIC(max, max(a, b))
FASTCTC_PTX_ATOMIC(exch, (static_cast<void>(a), b))
FASTCTC_PTX_ATOMIC(and, T(a& b))
FASTCTC_PTX_ATOMIC(or, T(a | b))
FASTCTC_PTX_ATOMIC(xor, T(a ^ b))
FASTCTC_PTX_ATOMIC(inc, a >= b ? T(0) : T(a + 1))
FASTCTC_PTX_ATOMIC(dec, a == 0 || a > b ? b : T(a - 1))
#undef FASTCTC_PTX_ATOMIC
template <class T>
inline T atomic_cas(Machine& m, Space space, uint64_t address, uint32_t line, T expected, T wanted) {
  return atomic<T>(m, space, address, line, [=](T a) { return a == expected ? wanted : a; });
}

// ---- warp collectives -----------------------------------------------------------------------------------------------

struct Shuffled {
  uint32_t value;
  bool in_range;
};
// `segment` has the clamp value in bits 0 to 4, the mask of the segment in bits 8 to 12.
struct Segment {
  int lane, first, last;
  Segment(const Thread& at, uint32_t segment) {
    const uint32_t clamp = segment & 31, mask = segment >> 8 & 31;
    lane = int(at.lane);
    first = int(at.lane & mask);
    last = int((at.lane & mask) | (clamp & ~mask));
  }
};
inline Shuffled shuffle_from(Machine& m, const Segment& s, uint32_t value, int source, bool in_range, uint32_t mask,
                             const char* opcode, uint32_t line) {
  return {m.shuffle(mask, value, uint32_t(in_range ? source : s.lane), opcode, line), in_range};
}
#define FASTCTC_PTX_SHUFFLE(name, source, in_range)                                                                \
  inline Shuffled shuffle_##name(Machine& m, const Thread& at, uint32_t value, uint32_t operand, uint32_t segment, \
                                 uint32_t mask, const char* opcode, uint32_t line) {                               \
    const Segment s(at, segment);                                                                                  \
    const int b = int(operand & 31), j = source;                                                                   \
    return shuffle_from(m, s, value, j, in_range, mask, opcode, line);                                             \
  }
FASTCTC_PTX_SHUFFLE(up, s.lane - b, j >= s.last)
FASTCTC_PTX_SHUFFLE(down, s.lane + b, j <= s.last)
FASTCTC_PTX_SHUFFLE(bfly, s.lane ^ b, j <= s.last)
FASTCTC_PTX_SHUFFLE(idx, s.first | (b & ~int(segment >> 8 & 31)), j <= s.last)
#undef FASTCTC_PTX_SHUFFLE

// The values of the lanes of `mask` that the block has, combined.
template <class T, class Combine>
inline T combined(Machine& m, const Thread& at, uint32_t mask, T value, const char* opcode, uint32_t line,
                  Combine combine) {
  const uint64_t* values = m.meet(mask, put<uint64_t>(get<Unsigned<T>>(value)), opcode, line, false);
  bool first = true;
  T result{};
  for (uint32_t lane = 0; lane < 32 && at.warp * 32 + lane < at.block_threads(); ++lane) {
    if (!(mask >> lane & 1)) continue;
    const T each = get<T>(values[lane]);
    result = first ? each : combine(result, each);
    first = false;
  }
  return result;
}
#define FASTCTC_PTX_REDUCE(name, together)                                                                          \
  template <class T>                                                                                                \
  inline T reduce_##name(Machine& m, const Thread& at, uint32_t mask, T value, const char* opcode, uint32_t line) { \
    return combined<T>(m, at, mask, value, opcode, line, [](T a, T b) -> T { return together; });                   \
  }
FASTCTC_PTX_REDUCE(add, add(a, b))
FASTCTC_PTX_REDUCE(min, min(a, b))
FASTCTC_PTX_REDUCE(max, max(a, b))
FASTCTC_PTX_REDUCE(and, T(a& b))
FASTCTC_PTX_REDUCE(or, T(a | b))
FASTCTC_PTX_REDUCE(xor, T(a ^ b))
#undef FASTCTC_PTX_REDUCE

inline uint32_t vote_ballot(Machine& m, const Thread& at, uint32_t mask, bool vote, const char* opcode, uint32_t line) {
  return reduce_or<uint32_t>(m, at, mask, vote ? 1u << at.lane : 0u, opcode, line);
}
inline bool vote_any(Machine& m, const Thread& at, uint32_t mask, bool vote, const char* opcode, uint32_t line) {
  return reduce_or<uint32_t>(m, at, mask, vote, opcode, line) != 0;
}
inline bool vote_all(Machine& m, const Thread& at, uint32_t mask, bool vote, const char* opcode, uint32_t line) {
  return reduce_and<uint32_t>(m, at, mask, vote, opcode, line) != 0;
}
inline bool vote_uni(Machine& m, const Thread& at, uint32_t mask, bool vote, const char* opcode, uint32_t line) {
  const uint32_t both = reduce_or<uint32_t>(m, at, mask, vote ? 1 : 2, opcode, line);
  return both != 3;
}
template <class T>
inline uint32_t match_any(Machine& m, const Thread& at, uint32_t mask, T value, const char* opcode, uint32_t line) {
  const uint64_t* values = m.meet(mask, uint64_t(value), opcode, line, false);
  uint32_t same = 0;
  for (uint32_t lane = 0; lane < 32 && at.warp * 32 + lane < at.block_threads(); ++lane)
    same |= uint32_t((mask >> lane & 1) && values[lane] == uint64_t(value)) << lane;
  return same;
}

}  // namespace fastctc::ptx
