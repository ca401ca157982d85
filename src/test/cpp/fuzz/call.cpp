// SPDX-License-Identifier: Apache-2.0
// One fuzzed call: layouts, faults, memory with poison around it, and what must hold afterwards.
#include "fuzz/call.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace molfuse_fuzz {
namespace {

using Wide = __int128;

constexpr unsigned char kPoison = 0xFF;  // NaN in every float type, -1 in the integers
constexpr int64_t kMostElements = int64_t{1} << 20;

double decode(int32_t dtype, const void* at) {
  uint16_t half;
  std::memcpy(&half, at, 2);
  switch (dtype) {
    case MOLFUSE_F32: { float v; std::memcpy(&v, at, 4); return static_cast<double>(v); }
    case MOLFUSE_F64: { double v; std::memcpy(&v, at, 8); return v; }
    case MOLFUSE_BF16: { float v; const uint32_t bits = uint32_t{half} << 16; std::memcpy(&v, &bits, 4); return static_cast<double>(v); }
    case MOLFUSE_F16: {
      const int exponent = half >> 10 & 31, mantissa = half & 1023;
      double value = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
      if (exponent == 31) value = mantissa != 0 ? std::nan("") : std::numeric_limits<double>::infinity();
      return (half & 0x8000) != 0 ? -value : value;
    }
    case MOLFUSE_I32: { int32_t v; std::memcpy(&v, at, 4); return v; }
    default: { int64_t v; std::memcpy(&v, at, 8); return static_cast<double>(v); }
  }
}

/// value as f32, f64, bf16 or, roughly, f16.
void encode(int32_t dtype, double value, void* at) {
  const auto single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, 4);
  if (dtype == MOLFUSE_F64) {
    std::memcpy(at, &value, 8);
  } else if (dtype == MOLFUSE_F32) {
    std::memcpy(at, &single, 4);
  } else {
    auto half = static_cast<uint16_t>(bits >> 16);
    if (dtype == MOLFUSE_F16) {
      const bool tiny = std::fabs(value) < 1, nan = std::isnan(value);
      half = static_cast<uint16_t>((half & 0x8000) | (nan ? 0x7E00 : value == 0 ? 0 : tiny ? 0x0001 : std::fabs(value) < 2 ? 0x3C00 : 0x7C00));
    }
    std::memcpy(at, &half, 2);
  }
}

/// A heap block of exactly the bytes asked for, for AddressSanitizer.
class Block {
 public:
  Block() = default;
  explicit Block(size_t bytes) : data_(static_cast<unsigned char*>(std::malloc(std::max<size_t>(bytes, 1)))), bytes_(bytes) {
    std::memset(data_.get(), kPoison, bytes);
  }
  unsigned char* data() const { return data_.get(); }
  size_t size() const { return bytes_; }
  std::vector<unsigned char> copy() const { return {data(), data() + bytes_}; }

 private:
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  std::unique_ptr<unsigned char, Free> data_;
  size_t bytes_ = 0;
};

int rank(const molfuse_tensor& view) { return std::clamp(view.ndim, 0, MOLFUSE_MAX_DIMS); }

/// The first and last element of a view, in elements from its data.
struct Extent {
  Wide low = 0, high = 0, count = 1;
};
Extent extent_of(const molfuse_tensor& view) {
  Extent e;
  for (int d = 0; d < rank(view); ++d) {
    if (view.size[d] <= 0) return {0, -1, 0};
    const Wide reach = static_cast<Wide>(view.size[d] - 1) * view.stride[d];
    (reach < 0 ? e.low : e.high) += reach;
    e.count = std::min<Wide>(e.count * view.size[d], Wide{1} << 62);
  }
  return e;
}

/// Calls use(n, offset in elements) for every element of a view, n counting in row-major order.
template <class Use>
void each_element(const molfuse_tensor& view, Use&& use) {
  const int64_t count = static_cast<int64_t>(extent_of(view).count);
  for (int64_t n = 0; n < count; ++n) {
    int64_t rest = n, at = 0;
    for (int d = rank(view); d-- > 0;) {
      at += rest % view.size[d] * view.stride[d];
      rest /= view.size[d];
    }
    use(n, at);
  }
}

/// A number around one of any float type, by its bits: fast.
void put_noise(std::mt19937_64& noise, int32_t dtype, unsigned char* at) {
  const uint64_t bits = noise();
  const double value = (static_cast<double>(bits >> 11) * 0x1p-53 - 0.5) * 4;
  if (dtype == MOLFUSE_F16) {
    const auto half = static_cast<uint16_t>((bits & 0x83FF) | (12 + (bits >> 20) % 4) << 10);
    std::memcpy(at, &half, 2);
  } else if (dtype == MOLFUSE_BF16) {
    const auto half = static_cast<uint16_t>((bits & 0x807F) | (124 + (bits >> 20) % 4) << 7);
    std::memcpy(at, &half, 2);
  } else {
    encode(dtype, value, at);
  }
}

double draw_wild(Choices& c) {
  const double inf = std::numeric_limits<double>::infinity();
  return c.of<double>({std::nan(""), inf, -inf, -1.0, 0.0, 1.0, 1e308, -1e308, 1e38, 1e-310, 1e-40, 0.9999999999999999});
}
int64_t draw_absurd(Choices& c) {
  return c.of<int64_t>({0, 1, -1, 2, 3, 7, 64, 255, 65536, INT32_MAX, int64_t{INT32_MAX} + 1, int64_t{1} << 48, (int64_t{1} << 48) + 1, int64_t{1} << 61,
                        int64_t{1} << 62, INT64_MAX, INT64_MAX - 1, INT64_MIN, INT32_MIN});
}

/// What is known of a call before it is made.
struct Expectation {
  int faults = 0;
  bool must_fail = false;  ///< if it is the only fault
  bool wild = false;       ///< numbers that overflow differently in different orders of summation
  bool undefined = false;  ///< an output lies in another tensor's memory: what is computed is undefined, what is touched is not
  bool lying = false;      ///< an output says that it is larger than its memory: only to be refused, or not touched there
  std::string story;
};

class Trial {
 public:
  Trial(Call& call, Choices& choices) : call_(call), c_(choices) {}

  std::string run(uint64_t* calls, uint64_t* successes) {
    for (Slot& slot : call_.slots) lay_out(slot);
    const int faults = static_cast<int>(c_.one_in(3) ? 0 : c_.between(1, 2));
    for (int n = 0; n < faults; ++n) spoil();
    if (call_.settle) call_.settle(call_);
    draw_execution();
    allocate();
    if (call_.prepare) prepare();
    cut_struct();
    const std::string wrong = make(calls, successes);
    if (wrong.empty()) return wrong;
    return call_.function + ": " + wrong + "\n  faults:" + (expect_.story.empty() ? " none" : expect_.story) + describe();
  }

 private:
  // ---- views

  void lay_out(Slot& slot) {
    molfuse_tensor& view = *slot.at;
    view.dtype = slot.dtype;
    view.ndim = static_cast<int32_t>(slot.sizes.size());
    int order[MOLFUSE_MAX_DIMS] = {0, 1, 2, 3};
    const int fixed = slot.dense ? 1 : 0;
    if (c_.one_in(3)) {
      for (int d = view.ndim - fixed; d > 1; --d) std::swap(order[d - 1], order[c_.next(static_cast<uint64_t>(d))]);
    }
    int64_t step = 1;
    for (int n = view.ndim; n-- > 0;) {
      const int d = order[n];
      view.size[d] = slot.sizes[static_cast<size_t>(d)];
      const bool innermost = slot.dense && d == view.ndim - 1;
      if (!innermost && c_.one_in(8)) step += c_.between(1, 3);
      view.stride[d] = !innermost && c_.one_in(10) ? -step : step;
      step *= std::max<int64_t>(1, view.size[d]);
      const bool read_only = slot.role == Role::input || slot.role == Role::index;
      if (read_only && slot.role != Role::index && !slot.distinct && !innermost && c_.one_in(16)) view.stride[d] = 0;
      // Where there is one element, its stride is nobody's business.
      if (view.size[d] <= 1 && c_.one_in(6)) view.stride[d] = c_.of<int64_t>({0, -1, INT64_MAX, INT64_MIN, 12345});
    }
  }

  // ---- faults

  Slot& any_slot() { return call_.slots[c_.next(call_.slots.size())]; }
  void tell(const std::string& what, bool must_fail = false) {
    expect_.story += " " + what + ";";
    ++expect_.faults;
    expect_.must_fail = must_fail;
  }

  void spoil() {
    Slot& slot = any_slot();
    molfuse_tensor& view = *slot.at;
    const bool empty = extent_of(view).count == 0;
    switch (c_.next(12)) {
      case 0:
        missing_.push_back(&slot);
        return tell(slot.name + " absent", slot.required && !empty);
      case 1: {
        view.ndim = c_.of<int32_t>({-1, 0, 1, 2, 3, 4, 5, 1000, INT32_MAX, INT32_MIN});
        // In memory that has the right number of dimensions only: the sizes behind them may be anything.
        return tell(slot.name + " ndim", view.ndim != static_cast<int32_t>(slot.sizes.size()) && slot.required);
      }
      case 2: {
        if (view.ndim < 1 || view.ndim > MOLFUSE_MAX_DIMS) return;
        const int d = static_cast<int>(c_.next(static_cast<uint64_t>(view.ndim)));
        view.size[d] = draw_absurd(c_);
        if (slot.sole && view.size[d] <= int64_t{1} << 48) view.size[d] = std::min<int64_t>(view.size[d], 65536);
        // A larger view must lie in memory, too: in all of it, over and over, which only an output may not. One element may have had any
        // stride; several may not.
        const bool far = view.size[d] > 1 && (view.stride[d] > INT32_MAX || view.stride[d] < INT32_MIN);
        if (view.size[d] > 300 || far || (!empty && extent_of(view).count > 300000)) {
          if (slot.role == Role::output || slot.role == Role::updated) {
            expect_.lying = true;
          } else {
            view.stride[d] = 0;
          }
          huge_ = true;
        }
        return tell(slot.name + " size " + std::to_string(view.size[d]) + " in dimension " + std::to_string(d), view.size[d] < 0 && slot.required);
      }
      case 3: {
        if (view.ndim < 1 || view.ndim > MOLFUSE_MAX_DIMS) return;
        const int d = static_cast<int>(c_.next(static_cast<uint64_t>(view.ndim)));
        view.stride[d] = c_.of<int64_t>({0, 1, 2, -1, 5});
        return tell(slot.name + " stride " + std::to_string(view.stride[d]) + " in dimension " + std::to_string(d));
      }
      case 4:
        view.dtype = c_.of<int32_t>({0, 1, 2, 3, 4, 5, 6, -1, 100, INT32_MAX, INT32_MIN});
        return tell(slot.name + " type " + std::to_string(view.dtype), (view.dtype < 0 || view.dtype > 5) && slot.required);
      case 5:
        misaligned_.push_back(&slot);
        return tell(slot.name + " misaligned", slot.required && !empty);
      case 6: {
        if (call_.numbers.empty()) return;
        const Number& number = call_.numbers[c_.next(call_.numbers.size())];
        if (number.kind == Number::f64) {
          *static_cast<double*>(number.at) = draw_wild(c_);
          expect_.wild = true;
          return tell(number.name + " " + std::to_string(*static_cast<double*>(number.at)));
        }
        const int64_t value = draw_absurd(c_);
        if (number.kind == Number::i32) {
          *static_cast<int32_t*>(number.at) = static_cast<int32_t>(value);
        } else {
          *static_cast<int64_t*>(number.at) = value;
        }
        return tell(number.name + " " + std::to_string(value));
      }
      case 7: {
        std::vector<Slot*> indices;
        for (Slot& each : call_.slots) {
          if (each.role == Role::index) indices.push_back(&each);
        }
        if (indices.empty()) return;
        Slot* const chosen = indices[c_.next(indices.size())];
        corrupted_.push_back(chosen);
        return tell(chosen->name + " values");
      }
      case 8:
        wild_values_.push_back(&slot);
        expect_.wild = true;
        return tell(slot.name + " wild values");
      case 9: {
        Slot& other = any_slot();
        if (&other == &slot || shared_.first != nullptr) return;
        shared_ = {&slot, &other};
        return tell(slot.name + " in the memory of " + other.name);
      }
      case 10:
        struct_fault_ = 1 + static_cast<int>(c_.next(3));
        return tell("struct size", struct_fault_ != 1 && call_.args != nullptr);
      default:
        execution_fault_ = 1 + static_cast<int>(c_.next(7));
        return tell("execution fault " + std::to_string(execution_fault_), execution_fault_ <= 6);
    }
  }

  void draw_execution() {
    molfuse_execution& e = execution_;
    std::memset(static_cast<void*>(&e), 0, sizeof e);
    e.struct_size = sizeof e;
    e.num_threads = c_.one_in(2) ? static_cast<int32_t>(c_.between(1, 4)) : 0;
    e.deterministic = c_.of<int32_t>({0, 1, -5});
    e.stream = c_.one_in(2) ? reinterpret_cast<void*>(uintptr_t{0xDEAD}) : nullptr;  // nobody's business on the CPU
    switch (execution_fault_) {
      case 1: e.device_type = c_.of<int32_t>({2, -1, INT32_MAX}); break;
      case 2: e.num_threads = c_.of<int32_t>({-1, INT32_MIN}); break;
      case 3: e.struct_size = c_.of<size_t>({0, 1, 7, 9, 63}); break;
      case 4: e.struct_size = c_.of<size_t>({sizeof e + 8, sizeof e + 1, SIZE_MAX, SIZE_MAX - 7}); break;
      case 5: e.allocate = [](void*, size_t) -> void* { return nullptr; }; break;
      case 6: e.release = [](void*, void*) {}; break;
      case 7: e.struct_size = 8 * static_cast<size_t>(c_.between(1, sizeof e / 8)); break;
      default: break;
    }
    with_execution_ = execution_fault_ != 0 || c_.one_in(2);
  }

  // ---- memory

  static bool is_in(const std::vector<Slot*>& list, const Slot& slot) {
    return std::find(list.begin(), list.end(), &slot) != list.end();
  }

  void allocate() {
    const size_t count = call_.slots.size();
    blocks_.resize(count);
    for (size_t n = 0; n < count; ++n) {
      Slot& slot = call_.slots[n];
      molfuse_tensor& view = *slot.at;
      if (is_in(missing_, slot)) continue;
      const size_t element = std::max<size_t>(1, molfuse_dtype_size(view.dtype));
      Extent e = extent_of(view);
      if (e.high - e.low > kMostElements) {
        // Only a fault makes this, of an output or of a combination: memory for what the view was.
        expect_.lying = true;
        e = {0, 4096, 0};
      }
      const size_t guard = c_.one_in(2) ? 64 : 0;  // with none, the sanitizer sees the first byte beyond
      const Wide elements = e.high - e.low + 1;
      const size_t shift = c_.one_in(4) ? element : 0;  // begins where no vector does
      Block& block = blocks_[n] = Block(2 * guard + shift + static_cast<size_t>(elements) * element + (is_in(misaligned_, slot) ? 8 : 0));
      view.data = block.data() + guard + shift + static_cast<size_t>(-e.low) * element;
      if (is_in(misaligned_, slot)) view.data = static_cast<char*>(view.data) + (element > 1 ? c_.between(1, static_cast<int64_t>(element) - 1) : 1);
      if (slot.sizes_only) {
        view.data = nullptr;
        continue;
      }
      if (slot.role != Role::output) fill(slot, view, e);
    }
    share();
  }

  void fill(const Slot& slot, const molfuse_tensor& view, const Extent& e) {
    const auto element = static_cast<int64_t>(molfuse_dtype_size(view.dtype));
    if (element == 0 || e.count == 0) return;
    auto* const data = static_cast<unsigned char*>(view.data);
    const bool floats = view.dtype <= MOLFUSE_BF16;
    const auto put = [&](int64_t n, int64_t at) {
      if (floats) {
        put_noise(c_.noise(), view.dtype, data + at * element);
      } else if (is_in(misaligned_, slot)) {
        std::memset(data + at * element, 0, static_cast<size_t>(element));
      } else {
        int64_t most = 1;
        for (const int64_t size : slot.sizes) most *= size;
        const int64_t value = slot.index != nullptr && n < most ? slot.index(n) : 1;
        if (view.dtype == MOLFUSE_I32) {
          const auto narrow = static_cast<int32_t>(value);
          std::memcpy(data + at * element, &narrow, 4);
        } else {
          std::memcpy(data + at * element, &value, 8);
        }
      }
    };
    if (e.count > kMostElements) {
      for (int64_t at = static_cast<int64_t>(e.low); at <= static_cast<int64_t>(e.high); ++at) put(0, at);
      return;
    }
    each_element(view, put);
    const bool corrupt = is_in(corrupted_, slot), wild = is_in(wild_values_, slot);
    for (int64_t left = corrupt || wild ? c_.between(1, 3) : 0; left > 0; --left) {
      int64_t rest = c_.between(0, static_cast<int64_t>(e.count) - 1), at = 0;
      for (int d = rank(view); d-- > 0;) {
        at += rest % view.size[d] * view.stride[d];
        rest /= view.size[d];
      }
      if (floats && wild) {
        encode(view.dtype, draw_wild(c_), data + at * element);
      } else if (corrupt && view.dtype == MOLFUSE_I32) {
        const auto value = static_cast<int32_t>(draw_absurd(c_));
        std::memcpy(data + at * element, &value, 4);
      } else if (corrupt && view.dtype == MOLFUSE_I64) {
        const int64_t value = draw_absurd(c_);
        std::memcpy(data + at * element, &value, 8);
      }
    }
  }

  /// One tensor in another's memory: exactly there where that is allowed, else from the same address, if it has room.
  void share() {
    Slot *const from = shared_.first, *const into = shared_.second;
    if (from == nullptr || from->at->data == nullptr || into->at->data == nullptr) return;
    if (from->may_share == into->name && expect_.faults == 1 && from->role == Role::output) {
      *from->at = *into->at;
      // Its strides are now an input's.
      const molfuse_tensor& view = *from->at;
      for (int d = 0; d < rank(view); ++d) {
        if (view.size[d] > 1 && view.stride[d] == 0) expect_.undefined = true;
      }
      return;
    }
    const size_t n = static_cast<size_t>(into - call_.slots.data());
    const Extent e = extent_of(*from->at);
    const auto element = static_cast<Wide>(molfuse_dtype_size(from->at->dtype));
    const Wide begin = static_cast<unsigned char*>(into->at->data) - blocks_[n].data() + e.low * element;
    if (begin < 0 || begin + (e.high - e.low + 1) * element > static_cast<Wide>(blocks_[n].size())) return;
    from->at->data = into->at->data;
    const bool writes = from->role == Role::output || from->role == Role::updated || into->role == Role::output || into->role == Role::updated;
    expect_.undefined = writes;
    expect_.wild = true;  // numbers of one type read as another
    const bool leads = from->role == Role::index || into->role == Role::index;
    expect_.must_fail = writes && leads && from->required && into->required && e.count > 0 && extent_of(*into->at).count > 0;
  }

  void prepare() {
    // With numbers that do not go with each other the result hangs on the way it is computed.
    if (expect_.faults > 0 || call_.prepare() != MOLFUSE_OK) expect_.wild = true;
  }

  /// The struct that the library sees, in memory of its own.
  void cut_struct() {
    if (call_.args == nullptr) return;
    size_t size = call_.args_bytes, claimed = size;
    if (struct_fault_ == 1) size = claimed = 8 * static_cast<size_t>(c_.between(1, static_cast<int64_t>(call_.args_bytes) / 8));
    if (struct_fault_ == 2) claimed = call_.args_bytes + c_.of<size_t>({1, 8, 16, size_t{1} << 40, SIZE_MAX - call_.args_bytes});
    if (struct_fault_ == 3) claimed = c_.of<size_t>({0, 1, 4, 7, 9, 13, 20});
    // What the caller does not know is zero to the library, and hence to the comparison.
    std::memset(static_cast<char*>(call_.args) + size, 0, call_.args_bytes - size);
    std::memcpy(call_.args, &claimed, sizeof claimed);
    sent_ = Block(size);
    std::memcpy(sent_.data(), call_.args, size);
  }

  // ---- the call and what must hold

  std::string make(uint64_t* calls, uint64_t* successes) {
    std::vector<std::vector<unsigned char>> before;
    for (const Block& block : blocks_) before.push_back(block.copy());
    Block execution(std::min(execution_.struct_size, sizeof execution_));
    std::memcpy(execution.data(), &execution_, execution.size());
    if (execution.size() < sizeof(size_t)) {
      execution = Block(sizeof(size_t));
      std::memcpy(execution.data(), &execution_.struct_size, sizeof(size_t));
    }
    ++*calls;
    const molfuse_status status =
        call_.run(sent_.data(), with_execution_ ? reinterpret_cast<const molfuse_execution*>(execution.data()) : nullptr);
    const std::string text = molfuse_last_error();
    if (status == MOLFUSE_OK) ++*successes;

    if (status < MOLFUSE_OK || status > MOLFUSE_OUT_OF_MEMORY) return "status " + std::to_string(status) + ": " + text;
    if ((status == MOLFUSE_OK) != text.empty()) return "status " + std::to_string(status) + " with the text \"" + text + "\"";
    if (status == MOLFUSE_OUT_OF_MEMORY && !huge_ && !expect_.lying && expect_.faults == 0) return "out of memory";
    if (status == MOLFUSE_OK && expect_.must_fail && expect_.faults == 1) return "not refused";
    if (status != MOLFUSE_OK && expect_.faults == 0) return "refused: " + text;
    for (size_t n = 0; n < blocks_.size(); ++n) {
      const std::string harm = harmed(n, before[n]);
      if (!harm.empty()) return harm;
    }
    if (status != MOLFUSE_OK || expect_.undefined || expect_.lying || huge_) return {};
    return compare(before);
  }

  bool may_write(const Slot& slot) const { return slot.role == Role::output || slot.role == Role::updated; }

  /// A byte that changed though no element that may be written is there.
  std::string harmed(size_t n, const std::vector<unsigned char>& before) const {
    const Block& block = blocks_[n];
    if (block.size() == 0 || std::memcmp(block.data(), before.data(), block.size()) == 0) return {};
    std::vector<bool> writable(block.size(), false);
    for (const Slot& slot : call_.slots) {
      const molfuse_tensor& view = *slot.at;
      const auto* const data = static_cast<const unsigned char*>(view.data);
      if (!may_write(slot) || data == nullptr || data < block.data() || data > block.data() + block.size()) continue;
      if (extent_of(view).count > kMostElements) return {};
      const auto element = static_cast<int64_t>(molfuse_dtype_size(view.dtype));
      each_element(view, [&](int64_t, int64_t at) {
        for (int64_t b = 0; b < element; ++b) {
          const ptrdiff_t place = data - block.data() + at * element + b;
          if (place >= 0 && place < static_cast<ptrdiff_t>(block.size())) writable[static_cast<size_t>(place)] = true;
        }
      });
    }
    for (size_t b = 0; b < block.size(); ++b) {
      if (block.data()[b] != before[b] && !writable[b]) {
        return "byte " + std::to_string(b) + " of the memory of " + call_.slots[n].name + " was changed, which is not of an output's element";
      }
    }
    return {};
  }

  /// The same call on row-major tensors in memory of their own, by one thread.
  std::string compare(const std::vector<std::vector<unsigned char>>& before) {
    std::vector<molfuse_tensor> views;
    std::vector<Block> plain(call_.slots.size());
    for (const Slot& slot : call_.slots) views.push_back(*slot.at);
    for (size_t n = 0; n < views.size(); ++n) {
      molfuse_tensor& view = *call_.slots[n].at;
      // What the call has not looked at may have any number of dimensions.
      if (view.data == nullptr || view.ndim < 0 || view.ndim > MOLFUSE_MAX_DIMS) continue;
      const size_t owner = owner_of(views[n]);
      const auto element = static_cast<int64_t>(molfuse_dtype_size(view.dtype));
      const int64_t count = static_cast<int64_t>(extent_of(view).count);
      plain[n] = Block(static_cast<size_t>(count * element));
      int64_t step = 1;
      for (int d = view.ndim; d-- > 0;) {
        view.stride[d] = step;
        step *= std::max<int64_t>(1, view.size[d]);
      }
      view.data = plain[n].data();
      const unsigned char* const from = before[owner].data() + (static_cast<unsigned char*>(views[n].data) - blocks_[owner].data());
      each_element(views[n], [&](int64_t k, int64_t at) { std::memcpy(plain[n].data() + k * element, from + at * element, static_cast<size_t>(element)); });
    }
    if (call_.args != nullptr) std::memcpy(call_.args, &call_.args_bytes, sizeof(size_t));
    molfuse_execution one;
    std::memset(static_cast<void*>(&one), 0, sizeof one);
    one.struct_size = sizeof one;
    one.num_threads = 1;
    const molfuse_status status = call_.run(call_.args, &one);
    std::string wrong;
    if (status != MOLFUSE_OK) wrong = std::string("succeeds, but is refused in plain memory: ") + molfuse_last_error();
    for (size_t n = 0; n < views.size() && wrong.empty() && !expect_.wild; ++n) {
      const Slot& slot = call_.slots[n];
      if (may_write(slot) && plain[n].data() != nullptr) wrong = differ(slot.name, views[n], plain[n]);
    }
    for (size_t n = 0; n < views.size(); ++n) *call_.slots[n].at = views[n];
    return wrong;
  }

  size_t owner_of(const molfuse_tensor& view) const {
    for (size_t n = 0; n < blocks_.size(); ++n) {
      const unsigned char *const begin = blocks_[n].data(), *const at = static_cast<const unsigned char*>(view.data);
      if (begin != nullptr && at >= begin && at <= begin + blocks_[n].size()) return n;
    }
    std::fprintf(stderr, "fuzz: a view outside all memory\n");
    std::abort();
  }

  static std::string differ(const std::string& name, const molfuse_tensor& view, const Block& plain) {
    const auto element = static_cast<int64_t>(molfuse_dtype_size(view.dtype));
    double largest = 0, worst = 0;
    int64_t where = 0;
    each_element(view, [&](int64_t n, int64_t at) {
      const double got = decode(view.dtype, static_cast<const unsigned char*>(view.data) + at * element);
      const double expected = decode(view.dtype, plain.data() + n * element);
      if (std::isfinite(expected)) largest = std::max(largest, std::fabs(expected));
      double difference = got == expected || (std::isnan(got) && std::isnan(expected)) ? 0 : std::fabs(got - expected);
      if (std::isnan(difference)) difference = std::numeric_limits<double>::infinity();
      if (difference > worst) worst = difference, where = n;
    });
    double tolerance = 0;
    switch (view.dtype) {
      case MOLFUSE_F32: tolerance = 1e-4; break;
      case MOLFUSE_F64: tolerance = 1e-10; break;
      case MOLFUSE_F16: tolerance = 4e-3; break;
      case MOLFUSE_BF16: tolerance = 3e-2; break;
      default: break;
    }
    if (worst <= tolerance * (1 + largest)) return {};
    return name + " differs from the result in plain memory by " + std::to_string(worst) + " at element " + std::to_string(where) + ", the largest being " +
           std::to_string(largest);
  }

  std::string describe() const {
    std::string text;
    for (const Slot& slot : call_.slots) {
      const molfuse_tensor& view = *slot.at;
      text += "\n  " + slot.name + (view.data == nullptr ? " absent " : " ") + molfuse_dtype_name(view.dtype) + " size";
      for (int d = 0; d < rank(view); ++d) text += " " + std::to_string(view.size[d]);
      text += " stride";
      for (int d = 0; d < rank(view); ++d) text += " " + std::to_string(view.stride[d]);
    }
    return text;
  }

  Call& call_;
  Choices& c_;
  Expectation expect_;
  std::vector<Slot*> missing_, misaligned_, corrupted_, wild_values_;
  std::pair<Slot*, Slot*> shared_ = {nullptr, nullptr};
  int struct_fault_ = 0, execution_fault_ = 0;
  bool huge_ = false, with_execution_ = false;
  molfuse_execution execution_;
  std::vector<Block> blocks_;
  Block sent_;
};

}  // namespace

std::string fuzz_once(Choices& choices, uint64_t* calls, uint64_t* successes) {
  Call call = draw_call(choices);
  return Trial(call, choices).run(calls, successes);
}

}  // namespace molfuse_fuzz
