// Registers hold bits: get<T>(register) reads the low ones as a T, put<Register>(value) extends a value by its sign or
// by zeros.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fastctc::ptx {

template <class T, class Register>
inline T get(Register bits) {
  static_assert(sizeof(T) <= sizeof(Register), "a register is not narrower than the value it holds");
  T value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

template <class Register, class T>
inline Register put(T value) {
  static_assert(sizeof(T) <= sizeof(Register), "a register is not narrower than the value it holds");
  if constexpr (std::is_floating_point_v<T>) {
    static_assert(sizeof(T) == sizeof(Register), "a float fills its register");
    return get<Register>(value);
  } else {
    return Register(value);
  }
}

template <class T>
using Unsigned = std::make_unsigned_t<T>;
// The type of twice the width.
template <class T>
struct WiderOf;
template <>
struct WiderOf<uint16_t> {
  using type = uint32_t;
};
template <>
struct WiderOf<int16_t> {
  using type = int32_t;
};
template <>
struct WiderOf<uint32_t> {
  using type = uint64_t;
};
template <>
struct WiderOf<int32_t> {
  using type = int64_t;
};
template <>
struct WiderOf<uint64_t> {
  using type = unsigned __int128;
};
template <>
struct WiderOf<int64_t> {
  using type = __int128;
};
template <class T>
using Wider = typename WiderOf<T>::type;
template <class T>
constexpr uint32_t kBits = sizeof(T) * 8;

}  // namespace fastctc::ptx
