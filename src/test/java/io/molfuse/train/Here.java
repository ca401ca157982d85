// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;

/** The device that {@code -Dmolfuse.test.device} names ("cpu" if absent, or "cuda"). */
final class Here {
  static final DeviceType TYPE =
      System.getProperty("molfuse.test.device", "cpu").startsWith("cuda") ? DeviceType.CUDA : DeviceType.CPU;

  private Here() {}

  /** The tensor itself, or its copy on the device. */
  static Tensor on(Tensor tensor) {
    return TYPE == DeviceType.CPU ? tensor : tensor.to(new Device(TYPE), tensor.scalar_type().intern());
  }
}
