// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.CudaDevice;
import java.util.Locale;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The arithmetic a model trains in; its parameters are float32 in all of them. */
public enum Precision {
  /** float32 throughout. */
  FP32,
  /** float32 whose matrix products round their factors to 10 bits of mantissa; compute capability 8.0 or newer. */
  TF32,
  /** Autocast to bfloat16, which has float32's range and needs no loss scale; compute capability 8.0 or newer, or the CPU. */
  BF16,
  /** Autocast to float16 with a dynamic loss scale; any CUDA device, or the CPU. */
  FP16,
  /** BF16 where the device has it, FP16 on compute capability 7.x, FP32 on older devices and on the CPU. */
  AUTO;

  private static final Logger LOG = LoggerFactory.getLogger(Precision.class);

  /**
   * What a precision comes to on a device.
   *
   * @param precision never AUTO
   * @param device CPU or CUDA
   * @param cuda the CUDA device it was made for; null for the CPU
   * @param reason why this one, in words
   */
  public record Choice(Precision precision, DeviceType device, CudaDevice cuda, String reason) {
    /**
     * Begins a region in which operators run in this precision.
     *
     * @return the region; one with autocast off for FP32 and TF32
     */
    public Autocast autocast() {
      return switch (precision) {
        case BF16 -> Autocast.on(device, ScalarType.BFloat16);
        case FP16 -> Autocast.on(device, ScalarType.Half);
        default -> Autocast.off(device);
      };
    }

    /** @return whether gradients need a loss scale: FP16's range ends at 6e-8 */
    public boolean scaling() {
      return precision == FP16;
    }

    /** @return a scaler with the usual settings, which passes everything through unless {@link #scaling()} */
    public GradScaler scaler() {
      return GradScaler.options().enabled(scaling()).build();
    }

    /** @return the settings that go with it, checked against its device: TF32 on for TF32, else nothing */
    public BackendSettings backend() {
      BackendSettings settings = BackendSettings.unchanged().device(cuda);
      return precision == TF32 ? settings.tf32Matmul(true).tf32Cudnn(true) : settings;
    }

    @Override
    public String toString() {
      return precision.name().toLowerCase(Locale.ROOT) + (scaling() ? " with a dynamic loss scale" : "") + ": " + reason;
    }
  }

  /**
   * Decides what this precision comes to, and logs it.
   *
   * @param device the CUDA device to train on; null for the CPU
   * @return the choice
   * @throws IllegalArgumentException if the device cannot do it, naming the precision and the device
   */
  public Choice on(CudaDevice device) {
    Choice choice = device == null ? onCpu() : onCuda(device);
    LOG.info("precision {}", choice);
    return choice;
  }

  private Choice onCpu() {
    return switch (this) {
      case TF32 -> throw new IllegalArgumentException(
          "precision tf32: needs a CUDA device of compute capability 8.0 or newer, but the model runs on the CPU");
      case AUTO -> new Choice(FP32, DeviceType.CPU, null, "chosen because the model runs on the CPU, where 16 bits save no time");
      default -> new Choice(this, DeviceType.CPU, null, "as asked for, on the CPU");
    };
  }

  private Choice onCuda(CudaDevice device) {
    String where = device.name() + " (compute capability " + device.computeCapability() + ")";
    if (!device.usable()) {
      throw new IllegalArgumentException(
          "precision " + name().toLowerCase(Locale.ROOT) + ": the device cannot be used: " + device.reason());
    }
    boolean ampere = device.computeMajor() >= 8;
    return switch (this) {
      case AUTO -> {
        Precision best = ampere ? BF16 : device.computeMajor() == 7 ? FP16 : FP32;
        String why = ampere ? "has bfloat16" : best == FP16 ? "has float16 but no bfloat16" : "is no faster in 16 bits";
        yield new Choice(best, DeviceType.CUDA, device, "chosen because " + where + " " + why);
      }
      case TF32, BF16 -> {
        if (!ampere) {
          throw new IllegalArgumentException(
              "precision " + name().toLowerCase(Locale.ROOT) + ": needs compute capability 8.0 or newer, but this is " + where);
        }
        yield new Choice(this, DeviceType.CUDA, device, "as asked for, on " + where);
      }
      default -> new Choice(this, DeviceType.CUDA, device, "as asked for, on " + where);
    };
  }
}
