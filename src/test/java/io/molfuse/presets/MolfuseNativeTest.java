// SPDX-License-Identifier: Apache-2.0
package io.molfuse.presets;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

/** The bindings themselves: that they load beside libtorch, and that values of each kind cross them. */
class MolfuseNativeTest {
  @Test
  void loadsTheLibraryOfThisBuild() {
    try (BytePointer version = MolfuseNative.version()) {
      assertThat(version.getString()).isEqualTo(System.getProperty("molfuse.version"));
    }
  }

  @Test
  void bindsEveryFunctionOfTheHeader() throws Exception {
    Set<String> declared = new TreeSet<>();
    Matcher matcher =
        Pattern.compile("^(?!//)[\\w:<>]+ (\\w+)\\(", Pattern.MULTILINE)
            .matcher(Files.readString(Path.of("src/main/cpp/torch/molfuse_torch.h")));
    while (matcher.find()) {
      declared.add(matcher.group(1));
    }
    Set<String> bound =
        Arrays.stream(MolfuseNative.class.getDeclaredMethods())
            .filter(method -> Modifier.isNative(method.getModifiers()))
            .map(Method::getName)
            .collect(Collectors.toCollection(TreeSet::new));
    assertThat(declared).contains("version", "attention", "clip_grad_norm_");
    assertThat(bound).isEqualTo(declared);
  }

  @Test
  void takesAndReturnsTheTensorsOfLibtorchsPreset() {
    try (PointerScope scope = new PointerScope()) {
      Tensor left = torch.ones(new long[] {2, 3});
      Tensor right = torch.zeros(new long[] {2, 5});
      Tensor both = MolfuseNative.latent_concat_pooled(new TensorVector(left, right));
      assertThat(both.sizes().vec().get()).containsExactly(2, 8);
      assertThat(both.sum().item_double()).isEqualTo(6.0);
    }
  }

  @Test
  void takesAbsentAndPresentOptionals() {
    try (PointerScope scope = new PointerScope()) {
      Tensor query = torch.randn(new long[] {1, 2, 4, 8});
      Tensor zero =
          MolfuseNative.attention(
              query, query, torch.zeros_like(query), new TensorOptional(), new TensorOptional(), new TensorOptional(),
              false, new DoubleOptional(), 0.0, new LongOptional(), 0);
      assertThat(zero.abs().sum().item_double()).isZero();
      Tensor one =
          MolfuseNative.attention(
              query, query, torch.ones_like(query), new TensorOptional(torch.zeros(new long[] {1, 1, 4, 4})),
              new TensorOptional(), new TensorOptional(), true, new DoubleOptional(0.5), 0.0, new LongOptional(7), 0);
      assertThat(one.sub(torch.ones_like(one)).abs().max().item_double()).isLessThan(1e-6);
    }
  }

  @Test
  void turnsNativeErrorsIntoRuntimeExceptions() {
    assertThatThrownBy(() -> MolfuseNative.set_cpu_level("quantum"))
        .isInstanceOf(RuntimeException.class)
        .hasMessageStartingWith("molfuse: invalid argument: ")
        .hasMessageContaining("quantum");
  }
}
