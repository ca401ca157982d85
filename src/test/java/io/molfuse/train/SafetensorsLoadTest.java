// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.abort;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Weights of other programs, by name; and Python's safetensors as an independent reader and writer, where it can be had. */
@SuppressWarnings("try")
class SafetensorsLoadTest {
  @TempDir Path folder;

  private Path file(Map<String, Tensor> tensors) throws IOException {
    Path file = folder.resolve("weights.safetensors");
    Safetensors.write(file, tensors, Map.of());
    return file;
  }

  private static Map<String, Tensor> model() {
    Map<String, Tensor> model = new LinkedHashMap<>();
    model.put("layer.weight", torch.zeros(2, 3));
    model.put("layer.bias", torch.zeros(3));
    return model;
  }

  @Test
  void prefixesAndWiderTypesAreLoaded() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      Tensor bias = torch.randn(3).to(ScalarType.BFloat16);
      Tensor weight = torch.randn(2, 3);
      Path file = file(Map.of("net.layer.weight", weight, "net.layer.bias", bias));
      Map<String, Tensor> model = model();
      LoadReport report = Safetensors.load(file, model, LoadOptions.strict().prefix("net.", "").prefix("", "unused."));
      assertThat(report.complete()).isTrue();
      assertThat(report.loaded()).containsExactlyInAnyOrder("layer.weight", "layer.bias");
      assertThat(report.converted()).containsExactly("layer.bias BF16 to F32");
      assertThat(report.text()).startsWith(file + " matches: 2 tensors fit").contains("converted (1)");
      assertThat(model.get("layer.weight").equal(weight)).isTrue();
      assertThat(model.get("layer.bias").equal(bias.to(ScalarType.Float))).isTrue();
    }
  }

  @Test
  void differencesAreReportedTogetherAndNothingIsLoaded() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      Path file = file(Map.of("layer.weight", torch.ones(3, 2), "head", torch.ones(1)));
      Map<String, Tensor> model = model();
      assertThatThrownBy(() -> Safetensors.load(file, model, LoadOptions.strict()))
          .isInstanceOf(CheckpointException.class)
          .hasMessageContaining("missing in the file (1): layer.bias")
          .hasMessageContaining("unexpected in the file (1): head")
          .hasMessageContaining("layer.weight is F32 [3, 2], but the model needs F32 [2, 3]");

      Path half = file(Map.of("layer.weight", torch.ones(2, 3), "layer.bias", torch.ones(3).to(ScalarType.Double)));
      assertThatThrownBy(() -> Safetensors.load(half, model, LoadOptions.strict()))
          .hasMessageContaining("layer.bias is F64 [3], but the model needs F32 [3]");
      assertThat(model.get("layer.weight").sum().item_float()).isZero();

      LoadReport report = Safetensors.load(half, model, LoadOptions.strict().allowPartial());
      assertThat(report.complete()).isFalse();
      assertThat(report.loaded()).containsExactly("layer.weight");
      assertThat(report.mismatched()).hasSize(1);
      assertThat(model.get("layer.weight").sum().item_float()).isEqualTo(6);
      assertThat(model.get("layer.bias").sum().item_float()).isZero();

      Path twice = file(Map.of("a.layer.bias", torch.ones(3), "layer.bias", torch.ones(3)));
      assertThatThrownBy(() -> Safetensors.load(twice, model, LoadOptions.strict().prefix("a.", "")))
          .hasMessageContaining("two tensors that the prefixes make layer.bias");
    }
  }

  @Test
  void onlyTypesThatHoldAllValuesFit() {
    Map<ElementType, List<ElementType>> wider =
        Map.of(
            ElementType.F16, List.of(ElementType.F16, ElementType.F32, ElementType.F64),
            ElementType.BF16, List.of(ElementType.BF16, ElementType.F32, ElementType.F64),
            ElementType.F64, List.of(ElementType.F64),
            ElementType.I64, List.of(ElementType.I64),
            ElementType.I32, List.of(ElementType.I32, ElementType.I64, ElementType.F64),
            ElementType.I16, List.of(ElementType.I16, ElementType.I32, ElementType.I64, ElementType.F32, ElementType.F64));
    wider.forEach(
        (type, expected) -> {
          for (ElementType other : ElementType.values()) {
            assertThat(type.fitsInto(other)).as("%s into %s", type, other).isEqualTo(expected.contains(other));
          }
        });
    assertThat(ElementType.U8.fitsInto(ElementType.I8)).isFalse();
    assertThat(ElementType.I8.fitsInto(ElementType.U8)).isFalse();
    assertThat(ElementType.U8.fitsInto(ElementType.BF16)).isTrue();
    assertThat(ElementType.BOOL.fitsInto(ElementType.U8)).isTrue();
    assertThat(ElementType.I8.fitsInto(ElementType.BOOL)).isFalse();
  }

  @Test
  void typesWithoutArithmeticAreReportedByName() throws IOException {
    byte[] header = "{\"layer.bias\": {\"dtype\": \"F8_E4M3\", \"shape\": [3], \"data_offsets\": [0, 3]}}".getBytes(StandardCharsets.UTF_8);
    Path file = folder.resolve("small.safetensors");
    Files.write(file, ByteBuffer.allocate(8 + header.length + 3).order(ByteOrder.LITTLE_ENDIAN).putLong(header.length).put(header).array());
    try (PointerScope scope = new PointerScope()) {
      LoadReport report = Safetensors.load(file, model(), LoadOptions.strict().allowPartial());
      assertThat(report.mismatched()).containsExactly("layer.bias is F8_E4M3 [3], but the model needs F32 [3]");
      assertThat(report.missing()).containsExactly("layer.weight");
      assertThatThrownBy(() -> Safetensors.read(file)).hasMessageContaining("as F8_E4M3, which libtorch cannot compute with");
    }
  }

  @Test
  void pythonReadsWhatIsWritten() throws IOException, InterruptedException {
    String packages = packages();
    try (PointerScope scope = new PointerScope()) {
      Map<String, Tensor> tensors = new LinkedHashMap<>();
      tensors.put("bfloat", Tensor.create(new float[] {1, -2}, 2).to(ScalarType.BFloat16));
      tensors.put("double", Tensor.create(new double[] {0.5}, 1));
      tensors.put("float", Tensor.create(new float[] {1, 2, 3, 4}, 2, 2).transpose(0, 1));
      tensors.put("long", Tensor.create(new long[] {-2}, 1));
      tensors.put("none", torch.zeros(0, 3));
      Path saved = Checkpoints.in(folder.resolve("run")).tensors("model", tensors).save(1, false);
      assertThat(peer(packages, "read", saved.resolve("model.safetensors")))
          .containsExactly(
              "bfloat;BF16;2;803f00c0",
              "double;F64;1;000000000000e03f",
              "float;F32;2,2;0000803f000040400000004000008040",
              "long;I64;1;feffffffffffffff",
              "none;F32;0,3;");
    }
  }

  @Test
  void whatPythonWritesIsLoaded() throws IOException, InterruptedException {
    String packages = packages();
    Path file = folder.resolve("python.safetensors");
    peer(packages, "write", file);
    try (PointerScope scope = new PointerScope()) {
      Map<String, Tensor> model = new LinkedHashMap<>();
      model.put("layer.weight", torch.zeros(2, 2));
      model.put("layer.bias", torch.zeros(2));
      model.put("steps", torch.zeros(new long[0]).to(ScalarType.Long));
      LoadReport report = Safetensors.load(file, model, LoadOptions.strict().prefix("module.", ""));
      assertThat(report.converted()).containsExactlyInAnyOrder("layer.bias F16 to F32", "steps I32 to I64");
      assertThat(model.get("layer.weight").equal(Tensor.create(new float[] {1, -2, 0.5f, 4}, 2, 2))).isTrue();
      assertThat(model.get("layer.bias").equal(Tensor.create(new float[] {0.25f, -8}, 2))).isTrue();
      assertThat(model.get("steps").item_long()).isEqualTo(-7);
    }
  }

  /** Where Python finds safetensors; the test is skipped if it cannot be had. */
  private String packages() throws IOException, InterruptedException {
    Path answer = folder.resolve("answer");
    Path reason = folder.resolve("reason");
    String variable = "MOLFUSE_SAFETENSORS=";
    try {
      Process process =
          new ProcessBuilder("python3", "scripts/build/bootstrap.py", "safetensors")
              .redirectOutput(answer.toFile())
              .redirectError(reason.toFile())
              .start();
      if (process.waitFor() == 0) {
        return Files.readString(answer).strip().substring(variable.length());
      }
    } catch (IOException e) {
      Files.writeString(reason, e.getMessage());
    }
    String why = "skipped, as Python's safetensors cannot be had: " + Files.readString(reason).strip();
    System.out.println(why);
    return abort(why);
  }

  private List<String> peer(String packages, String command, Path file) throws IOException, InterruptedException {
    Path script = Path.of("src/test/resources/io/molfuse/train/safetensors_peer.py");
    ProcessBuilder builder = new ProcessBuilder("python3", script.toString(), command, file.toString()).redirectErrorStream(true);
    builder.environment().put("PYTHONPATH", packages);
    builder.environment().put("PYTHONDONTWRITEBYTECODE", "1");
    Process process = builder.start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as(output).isZero();
    return new ArrayList<>(output.lines().toList());
  }
}
