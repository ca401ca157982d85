// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.CudaDevice;
import io.molfuse.ops.Molfuse;
import java.util.Locale;
import java.util.StringJoiner;
import org.bytedeco.pytorch.Context;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.Float32MatmulPrecision;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Switches of libtorch and the libraries under it, to be set for a time and put back. They hold for the whole process, but for the number
 * of threads, which is that of the calling thread's operators (and of OpenBLAS). What is not set here stays as it is.
 *
 * <pre>{@code
 * try (BackendSettings.Applied applied = BackendSettings.unchanged().tf32Matmul(true).cudnnBenchmark(true).apply()) {
 *   train();
 * }
 * }</pre>
 */
public final class BackendSettings {
  private static final Logger LOG = LoggerFactory.getLogger(BackendSettings.class);

  /** What float32 matrix products may trade for speed, in libtorch's words. */
  public enum MatmulPrecision {
    /** float32 throughout. */
    HIGHEST,
    /** TF32, or three bfloat16 products for one. */
    HIGH,
    /** bfloat16 products where that is fast, else as HIGH. */
    MEDIUM
  }

  private Boolean tf32Matmul;
  private Boolean tf32Cudnn;
  private Boolean cudnnBenchmark;
  private Boolean cudnnDeterministic;
  private Boolean deterministicAlgorithms;
  private MatmulPrecision matmulPrecision;
  private Integer threads;
  private CudaDevice device;

  private BackendSettings() {}

  /** @return settings that change nothing yet */
  public static BackendSettings unchanged() {
    return new BackendSettings();
  }

  /**
   * @param on whether float32 matrix products on CUDA devices may use TF32; the same switch as {@link #matmulPrecision}
   * @return this
   */
  public BackendSettings tf32Matmul(boolean on) {
    tf32Matmul = on;
    return this;
  }

  /**
   * @param on whether cuDNN's float32 convolutions and recurrent layers may use TF32
   * @return this
   */
  public BackendSettings tf32Cudnn(boolean on) {
    tf32Cudnn = on;
    return this;
  }

  /**
   * @param on whether cuDNN tries its algorithms at the first use of a shape; for shapes that repeat
   * @return this
   */
  public BackendSettings cudnnBenchmark(boolean on) {
    cudnnBenchmark = on;
    return this;
  }

  /**
   * @param on whether cuDNN uses only algorithms that give the same bits each time
   * @return this
   */
  public BackendSettings cudnnDeterministic(boolean on) {
    cudnnDeterministic = on;
    return this;
  }

  /**
   * @param on whether operators of libtorch that cannot repeat their results raise an error
   * @return this
   */
  public BackendSettings deterministicAlgorithms(boolean on) {
    deterministicAlgorithms = on;
    return this;
  }

  /**
   * @param precision of float32 matrix products
   * @return this
   */
  public BackendSettings matmulPrecision(MatmulPrecision precision) {
    matmulPrecision = precision;
    return this;
  }

  /**
   * @param count CPU threads of operators, at least 1, see {@link Threads}. The pool between operators is left alone: libtorch sets its
   *     size once in the life of a process.
   * @return this
   */
  public BackendSettings threads(int count) {
    if (count < 1) {
      throw new IllegalArgumentException("threads must be at least 1, but is " + count);
    }
    threads = count;
    return this;
  }

  /**
   * @param trainedOn the CUDA device whose abilities count; the machine's first one unless set
   * @return this
   */
  public BackendSettings device(CudaDevice trainedOn) {
    device = trainedOn;
    return this;
  }

  /**
   * Sets what was asked for, after checking all of it, and logs it.
   *
   * @return puts back what was before, once closed; several must be closed in reverse order
   * @throws IllegalArgumentException if the {@link #device} (or having none) does not allow a setting, naming it; nothing is changed
   *     then
   */
  public Applied apply() {
    CudaDevice checked = device == null ? Molfuse.cudaDevice(0) : device;
    return apply(checked, Context.hasMKLDNN(), Molfuse.capabilities().cudnnUsable());
  }

  Applied apply(CudaDevice device, boolean oneDnn, boolean cudnn) {
    check(device, oneDnn, cudnn);
    Applied applied = new Applied();
    try {
      set();
    } catch (RuntimeException | Error e) {
      applied.close();
      throw e;
    }
    LOG.info("backend settings: {}", this);
    return applied;
  }

  private void check(CudaDevice device, boolean oneDnn, boolean cudnn) {
    boolean tf32 = device.usable() && device.computeMajor() >= 8;
    require("tf32 for matrix products", tf32Matmul, tf32, "a CUDA device of compute capability 8.0 or newer", device);
    require("tf32 for cuDNN", tf32Cudnn, tf32, "a CUDA device of compute capability 8.0 or newer", device);
    require("tf32 for cuDNN", tf32Cudnn, cudnn, "cuDNN", device);
    require("cuDNN benchmark", cudnnBenchmark, device.usable() && cudnn, "a CUDA device and cuDNN", device);
    require("cuDNN deterministic", cudnnDeterministic, device.usable() && cudnn, "a CUDA device and cuDNN", device);
    boolean lower = matmulPrecision != null && matmulPrecision != MatmulPrecision.HIGHEST;
    require(
        "matmul precision " + word(matmulPrecision),
        lower,
        tf32 || oneDnn,
        "a CUDA device of compute capability 8.0 or newer, or oneDNN",
        device);
    if (tf32Matmul != null && matmulPrecision != null && tf32Matmul != lower) {
      throw new IllegalArgumentException(
          "matmul precision " + word(matmulPrecision) + " contradicts tf32 for matrix products being " + (tf32Matmul ? "on" : "off"));
    }
  }

  private static void require(String setting, Boolean wanted, boolean possible, String needed, CudaDevice device) {
    if (wanted != null && wanted && !possible) {
      String there =
          device.usable()
              ? device.name() + " (compute capability " + device.computeCapability() + ")"
              : "no usable CUDA device: " + device.reason();
      throw new IllegalArgumentException(setting + ": needs " + needed + ", but there is " + there);
    }
  }

  private void set() {
    Context context = torch.globalContext();
    if (matmulPrecision != null) {
      context.setFloat32MatmulPrecision(word(matmulPrecision));
    } else if (tf32Matmul != null) {
      context.setFloat32MatmulPrecision(word(tf32Matmul ? MatmulPrecision.HIGH : MatmulPrecision.HIGHEST));
    }
    if (tf32Cudnn != null) {
      context.setAllowTF32CuDNN(tf32Cudnn);
    }
    if (cudnnBenchmark != null) {
      context.setBenchmarkCuDNN(cudnnBenchmark);
    }
    if (cudnnDeterministic != null) {
      context.setDeterministicCuDNN(cudnnDeterministic);
    }
    if (deterministicAlgorithms != null) {
      context.setDeterministicAlgorithms(deterministicAlgorithms, false);
    }
    if (threads != null) {
      Threads.set(threads);
    }
  }

  private static String word(Enum<?> value) {
    return value == null ? "" : value.name().toLowerCase(Locale.ROOT);
  }

  /** What is set, in words. */
  @Override
  public String toString() {
    StringJoiner words = new StringJoiner(", ");
    words.setEmptyValue("none changed");
    add(words, "tf32 for matrix products", tf32Matmul);
    add(words, "tf32 for cuDNN", tf32Cudnn);
    add(words, "cuDNN benchmark", cudnnBenchmark);
    add(words, "cuDNN deterministic", cudnnDeterministic);
    add(words, "deterministic algorithms", deterministicAlgorithms);
    if (matmulPrecision != null) {
      words.add("matmul precision " + word(matmulPrecision));
    }
    if (threads != null) {
      words.add("threads " + threads);
    }
    return words.toString();
  }

  private static void add(StringJoiner words, String name, Boolean value) {
    if (value != null) {
      words.add(name + (value ? " on" : " off"));
    }
  }

  /** Remembers the settings of before. */
  public static final class Applied implements AutoCloseable {
    private final Float32MatmulPrecision matmul = torch.globalContext().float32MatmulPrecision().intern();
    private final boolean tf32Cudnn = torch.globalContext().allowTF32CuDNN();
    private final boolean benchmark = torch.globalContext().benchmarkCuDNN();
    private final boolean deterministicCudnn = torch.globalContext().deterministicCuDNN();
    private final boolean deterministic = torch.globalContext().deterministicAlgorithms();
    private final boolean warnOnly = torch.globalContext().deterministicAlgorithmsWarnOnly();
    private final int threads = Threads.count();
    private final int blasThreads = Threads.blasCount();
    private boolean closed;

    private Applied() {}

    /** Puts the settings of before back. A second call does nothing. */
    @Override
    public void close() {
      if (closed) {
        return;
      }
      closed = true;
      Context context = torch.globalContext();
      if (context.float32MatmulPrecision().intern() != matmul) {
        context.setFloat32MatmulPrecision(word(matmul));
      }
      if (context.allowTF32CuDNN() != tf32Cudnn) {
        context.setAllowTF32CuDNN(tf32Cudnn);
      }
      context.setBenchmarkCuDNN(benchmark);
      context.setDeterministicCuDNN(deterministicCudnn);
      context.setDeterministicAlgorithms(deterministic, warnOnly);
      if (Threads.count() != threads || Threads.blasCount() != blasThreads) {
        Threads.set(threads, blasThreads);
      }
    }
  }
}
