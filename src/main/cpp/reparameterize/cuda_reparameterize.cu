// SPDX-License-Identifier: Apache-2.0
// Sampling on a GPU: every thread makes the noise of one or two groups of four elements, which are what one Philox counter gives, and
// reads and writes them as vectors where they lie side by side.
#include "reparameterize/kernels.h"
#include "runtime/device.h"
#include "runtime/device_call.h"
#include "runtime/log_var.h"

namespace molfuse {
namespace {

using namespace device;

constexpr int kThreads = 256;

struct SampleArgs {
  LatentOperand mean, log_var, z, grad_z, grad_mean, grad_log_var;
  int64_t count, dim;
  uint32_t seed_low, seed_high, offset_low, offset_high;
};

/// Two normal numbers of two words, as the header's contract says. A word has 32 bits, f32 has 24: what rounding leaves over is put back to
/// first order, and near 1, where the logarithm needs 1 - u, that is taken from ~w.
MOLFUSE_DEVICE void normals_of(uint32_t w0, uint32_t w1, float* first, float* second) {
  const float unit = 2.3283064365386963e-10f, half_turn_unit = 4.6566128730773926e-10f;  // 2^-32, 2^-31
  float log_u;
  if (w0 > 0xB504F333u) {
    log_u = log_one_plus(-(static_cast<float>(~w0) + 0.5f) * unit);
  } else {
    const bool exact = w0 < (1u << 23);
    const float base = exact ? static_cast<float>(w0) + 0.5f : static_cast<float>(w0);
    const float rest = exact ? 0.0f : static_cast<float>(static_cast<int32_t>(w0 - static_cast<uint32_t>(base))) + 0.5f;
    log_u = log(base * unit) + rest / base;
  }
  const float radius = square_root(-2.0f * log_u);
  // The nearest quarter turn from the high bits; the rest is within an eighth of a turn.
  const uint32_t shifted = w1 + (1u << 29), quarter = shifted >> 30;
  const int32_t steps = static_cast<int32_t>(shifted & 0x3FFFFFFFu) - (1 << 29);
  const float coarse = static_cast<float>(steps), rest = static_cast<float>(steps - static_cast<int32_t>(coarse)) + 0.5f;
  float s0, c0;
  sincos_pi(coarse * half_turn_unit, &s0, &c0);
  const float turn = rest * (half_turn_unit * 3.14159265f);
  const float s = fused_multiply_add(c0, turn, s0), c = fused_multiply_add(-s0, turn, c0);
  const float sine = (quarter & 1u) != 0 ? c : s, cosine = (quarter & 1u) != 0 ? s : c;
  *first = radius * (((quarter + 1u) & 2u) != 0 ? -cosine : cosine);
  *second = radius * ((quarter & 2u) != 0 ? -sine : sine);
}

/// The noise of the four elements 4 * group ...
MOLFUSE_DEVICE void noise_of(const SampleArgs& args, int64_t group, float* eps) {
  const PhiloxWords words = philox(static_cast<uint32_t>(group), static_cast<uint32_t>(static_cast<uint64_t>(group) >> 32), args.offset_low,
                                   args.offset_high, args.seed_low, args.seed_high);
  normals_of(words.w[0], words.w[1], eps, eps + 1);
  normals_of(words.w[2], words.w[3], eps + 2, eps + 3);
}

/// exp(clamp(log_var) / 2), and whether the clamp changed it. NaN stays.
MOLFUSE_DEVICE float deviation_of(float log_var, bool* outside) {
  const float low = static_cast<float>(kLogVarLowest), high = static_cast<float>(kLogVarHighest);
  *outside = log_var < low || log_var > high;
  return exp(0.5f * (log_var < low ? low : (log_var > high ? high : log_var)));
}

template <class T, int N, bool SIDE_BY_SIDE>
struct Access {
  /// Elements first .. first+N-1 in row-major order, of which those beyond count are left out.
  static MOLFUSE_DEVICE void read(const SampleArgs& args, const LatentOperand& operand, int64_t first, float (&to)[N]) {
    const T* data = static_cast<const T*>(operand.data);
    if constexpr (SIDE_BY_SIDE) {
      const Vector<T, N> v = load_once(reinterpret_cast<const Vector<T, N>*>(data + first / args.dim * operand.row + first % args.dim));
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) to[n] = to_float(v.item[n]);
    } else {
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) {
        const int64_t at = first + n;
        to[n] = at < args.count ? to_float(load(data + at / args.dim * operand.row + at % args.dim * operand.column)) : 0.0f;
      }
    }
  }
  static MOLFUSE_DEVICE void write(const SampleArgs& args, const LatentOperand& operand, int64_t first, const float (&from)[N]) {
    T* data = static_cast<T*>(operand.data);
    if constexpr (SIDE_BY_SIDE) {
      Vector<T, N> v;
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) v.item[n] = from_float<T>(from[n]);
      store(reinterpret_cast<Vector<T, N>*>(data + first / args.dim * operand.row + first % args.dim), v);
    } else {
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) {
        const int64_t at = first + n;
        if (at < args.count) store(data + at / args.dim * operand.row + at % args.dim * operand.column, from_float<T>(from[n]));
      }
    }
  }
};

template <class T, int N, bool SIDE_BY_SIDE>
MOLFUSE_KERNEL(kThreads, 4) sample_forward(const SampleArgs args) {
  using Elements = Access<T, N, SIDE_BY_SIDE>;
  const int64_t first = (static_cast<int64_t>(block_x()) * kThreads + thread_index()) * N;
  if (first >= args.count) return;
  float mean[N], log_var[N], eps[N];
  Elements::read(args, args.mean, first, mean);
  Elements::read(args, args.log_var, first, log_var);
  MOLFUSE_UNROLL
  for (int n = 0; n < N; n += 4) noise_of(args, (first + n) / 4, eps + n);
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    bool outside;
    mean[n] = fused_multiply_add(deviation_of(log_var[n], &outside), eps[n], mean[n]);
  }
  Elements::write(args, args.z, first, mean);
}

template <class T, int N, bool SIDE_BY_SIDE>
MOLFUSE_KERNEL(kThreads, 4) sample_backward(const SampleArgs args) {
  using Elements = Access<T, N, SIDE_BY_SIDE>;
  const int64_t first = (static_cast<int64_t>(block_x()) * kThreads + thread_index()) * N;
  if (first >= args.count) return;
  float grad[N];
  Elements::read(args, args.grad_z, first, grad);
  if (args.grad_mean.data != nullptr) Elements::write(args, args.grad_mean, first, grad);
  if (args.grad_log_var.data == nullptr) return;
  float log_var[N], eps[N];
  Elements::read(args, args.log_var, first, log_var);
  MOLFUSE_UNROLL
  for (int n = 0; n < N; n += 4) noise_of(args, (first + n) / 4, eps + n);
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    bool outside;
    const float deviation = deviation_of(log_var[n], &outside);
    grad[n] = outside ? 0.0f : grad[n] * eps[n] * deviation * 0.5f;
  }
  Elements::write(args, args.grad_log_var, first, grad);
}

template <class T>
void run(const SampleArgs& args, DeviceCall& call, bool backward) {
  constexpr int kWide = sizeof(T) == 4 ? 4 : 8;  // 16 bytes
  auto fits = [&](const LatentOperand& operand) {
    return operand.data == nullptr || ((args.dim == 1 || operand.column == 1) && operand.row % kWide == 0 &&
                                       reinterpret_cast<uintptr_t>(operand.data) % 16 == 0);
  };
  bool side_by_side = args.dim % kWide == 0;
  for (const LatentOperand* operand : {&args.mean, &args.log_var, &args.z, &args.grad_z, &args.grad_mean, &args.grad_log_var}) {
    side_by_side = side_by_side && fits(*operand);
  }
  const int64_t each = int64_t{kThreads} * (side_by_side ? kWide : 4);
  const Grid grid{(args.count + each - 1) / each, 1, 1};
  if (backward) {
    call.launch("reparameterize backward", side_by_side ? sample_backward<T, kWide, true> : sample_backward<T, 4, false>, grid, kThreads, 0, args);
  } else {
    call.launch("reparameterize forward", side_by_side ? sample_forward<T, kWide, true> : sample_forward<T, 4, false>, grid, kThreads, 0, args);
  }
}

}  // namespace

void reparameterize_device(const ReparameterizeProblem& p, DeviceCall& call) {
  SampleArgs args{p.mean, p.log_var, p.z, p.grad_z, p.grad_mean, p.grad_log_var, p.count, p.dim, 0, 0, 0, 0};
  args.seed_low = static_cast<uint32_t>(p.philox.seed);
  args.seed_high = static_cast<uint32_t>(p.philox.seed >> 32);
  args.offset_low = static_cast<uint32_t>(p.philox.offset);
  args.offset_high = static_cast<uint32_t>(p.philox.offset >> 32);
  const bool backward = p.grad_z.data != nullptr;
  switch (p.dtype) {
    case MOLFUSE_F32: return run<float>(args, call, backward);
    case MOLFUSE_F16: return run<f16>(args, call, backward);
    case MOLFUSE_BF16: return run<bf16>(args, call, backward);
    default: unsupported("reparameterize: f64 is for the CPU only");
  }
}

}  // namespace molfuse
