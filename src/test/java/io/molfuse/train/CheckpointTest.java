// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
class CheckpointTest {
  @TempDir Path folder;

  private static Map<String, Tensor> tensors() {
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    Seeds.seedLibtorch(5);
    tensors.put("weights", torch.randn(3, 5));
    tensors.put("transposed", torch.randn(4, 2).transpose(0, 1));
    tensors.put("scalar", torch.full(new long[0], new org.bytedeco.pytorch.Scalar(2.5)));
    tensors.put("none", torch.zeros(0, 7));
    tensors.put("double", torch.randn(2).to(ScalarType.Double));
    tensors.put("bfloat", torch.randn(9).to(ScalarType.BFloat16));
    tensors.put("numbers", Tensor.create(new long[] {1, -2, Long.MAX_VALUE}, 3));
    return tensors;
  }

  private Path save(long step, List<String> labels) {
    return RunDirectory.prepare(folder)
        .save(step, content(step), labels);
  }

  private static Checkpoint.Content content(long about) {
    return new Checkpoint.Content(Map.of("about", Map.of("a", about)), Map.of("model", tensors()));
  }

  @Test
  void safetensorsKeepEveryTypeAndShape() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      Path file = folder.resolve("all.safetensors");
      Map<String, Tensor> written = tensors();
      Safetensors.write(file, written, Map.of("format", "pt"));
      Map<String, Tensor> read = tensors();
      read.values().forEach(Tensor::zero_);
      Safetensors.readInto(file, read);
      written.forEach(
          (name, tensor) -> {
            assertThat(read.get(name).equal(tensor)).as(name).isTrue();
          });
      ByteBuffer start = ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
      assertThat(start.getLong() % 8).isZero();
      assertThat((char) start.get(8)).isEqualTo('{');
    }
  }

  @Test
  void tensorsComeBackFromACheckpoint() {
    try (PointerScope scope = new PointerScope()) {
      save(12, List.of("last"));
      Checkpoint checkpoint = Checkpoint.open(RunDirectory.resolve(folder, "best", "last"));
      assertThat(checkpoint.step()).isEqualTo(12);
      assertThat(checkpoint.document("about", JsonNode.class).path("a").asInt()).isEqualTo(12);
      Map<String, Tensor> into = tensors();
      into.values().forEach(Tensor::zero_);
      checkpoint.tensors("model", into);
      tensors().forEach((name, tensor) -> assertThat(into.get(name).equal(tensor)).as(name).isTrue());
    }
  }

  @Test
  void onlyLabelledCheckpointsAreKept() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      save(1, List.of("last", "best"));
      save(2, List.of("last"));
      save(3, List.of("last"));
      Files.createDirectory(folder.resolve("my-notes"));
      save(4, List.of("last"));
    }
    try (var files = Files.list(folder)) {
      assertThat(files.map(path -> path.getFileName().toString()))
          .containsExactlyInAnyOrder("step-00000001", "step-00000004", "last", "best", "my-notes");
    }
    assertThat(RunDirectory.resolve(folder, "best", "last").getFileName()).hasToString("step-00000001");
    assertThat(RunDirectory.resolve(folder.resolve("last")).getFileName()).hasToString("step-00000004");
  }

  @Test
  void whatTheLabelsDidNotNameIsNotDeleted() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      save(1, List.of("last"));
      Files.createDirectory(folder.resolve("step-00000777"));
      save(2, List.of("last"));
      assertThat(folder.resolve("step-00000777")).isDirectory();
      assertThat(folder.resolve("step-00000001")).doesNotExist();
      RunDirectory run = RunDirectory.prepare(folder);
      run.replaceEarlier();
      run.save(3, content(3), List.of("last"));
      assertThat(folder.resolve("step-00000777")).isDirectory();
    }
  }

  @Test
  void aFolderLeftByAKilledSaveIsNotTakenForTheNewCheckpoint() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      save(2, List.of("last"));
      Files.delete(folder.resolve("last"));
      Path saved = RunDirectory.prepare(folder).save(2, content(99), List.of("last"));
      assertThat(Checkpoint.open(saved).document("about", JsonNode.class).path("a").asInt()).isEqualTo(99);
      // The same step again, as when its parameters turn out to be the best.
      RunDirectory.prepare(folder).save(2, content(100), List.of("last", "best"));
      assertThat(Checkpoint.open(saved).document("about", JsonNode.class).path("a").asInt()).isEqualTo(100);
    }
    try (var files = Files.list(folder)) {
      assertThat(files.map(path -> path.getFileName().toString())).containsExactlyInAnyOrder("step-00000002", "last", "best");
    }
  }

  @Test
  void aSaveCutOffBetweenItsRenamesLosesNothing() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      Path saved = save(2, List.of("last"));
      Files.move(saved, folder.resolve("step-00000002.replaced"));
      assertThat(Checkpoint.open(RunDirectory.resolve(folder, "last")).step()).isEqualTo(2);
      save(3, List.of("last"));
    }
    try (var files = Files.list(folder)) {
      assertThat(files.map(path -> path.getFileName().toString())).containsExactlyInAnyOrder("step-00000003", "last");
    }
  }

  @Test
  void theLatestOfTheRegularOnesAreKept() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      RunDirectory run = RunDirectory.prepare(folder);
      run.keepEvery(2);
      run.save(1, content(1), List.of("last", "best"));
      for (long step = 2; step <= 9; step++) {
        run.save(step, content(step), step % 2 == 0 ? List.of("last", "every") : List.of("last"));
      }
      run.save(8, content(88), List.of("every"));
    }
    try (var files = Files.list(folder)) {
      assertThat(files.map(path -> path.getFileName().toString()))
          .containsExactlyInAnyOrder("step-00000001", "step-00000006", "step-00000008", "step-00000009", "last", "best", "every");
    }
    assertThat(Checkpoint.open(RunDirectory.resolve(folder.resolve("every"))).step()).isEqualTo(8);
  }

  @Test
  void whatAKilledSaveLeftIsRemovedByTheNext() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      save(1, List.of("last", "best"));
      save(2, List.of("last"));
      // Killed after the rename of step 3 and before the labels.
      Files.move(save(3, List.of("last")), folder.resolve("step-00000004"));
      Files.writeString(folder.resolve("last"), "step-00000001\n");
      Files.writeString(folder.resolve(".pending"), "step-00000001\nstep-00000004\nstep-00000004.replaced\n../other\n");
      Files.createDirectory(folder.resolve(".saving"));
      save(5, List.of("last"));
    }
    try (var files = Files.list(folder)) {
      assertThat(files.map(path -> path.getFileName().toString()))
          .containsExactlyInAnyOrder("step-00000001", "step-00000005", "last", "best");
    }
  }

  @Test
  void checkpointsOfTheFirstFormatAreRead() throws IOException {
    Files.writeString(folder.resolve("manifest.json"), "{\"format\": 1, \"step\": 7, \"files\": {}}");
    assertThat(Checkpoint.open(folder).step()).isEqualTo(7);
  }

  @Test
  void anEarlierRunStaysUntilTheFirstSaveOfItsReplacement() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      save(3, List.of("best"));
      save(5, List.of("last"));
      RunDirectory run = RunDirectory.prepare(folder);
      run.replaceEarlier();
      assertThat(Checkpoint.open(RunDirectory.resolve(folder, "best")).step()).isEqualTo(3);
      run.save(1, content(1), List.of("last"));
      run.save(2, content(2), List.of("best"));
    }
    try (var files = Files.list(folder)) {
      assertThat(files.map(path -> path.getFileName().toString()))
          .containsExactlyInAnyOrder("step-00000001", "step-00000002", "last", "best");
    }
  }

  @Test
  void oneRunHasAFolderAtATime() {
    try (RunDirectory first = RunDirectory.prepare(folder)) {
      assertThat(first.tryLock()).isTrue();
      assertThat(RunDirectory.prepare(folder).tryLock()).isFalse();
    }
    try (RunDirectory next = RunDirectory.prepare(folder)) {
      assertThat(next.tryLock()).isTrue();
    }
  }

  @Test
  void damageIsFoundAndNamed() throws IOException {
    Path saved;
    try (PointerScope scope = new PointerScope()) {
      saved = save(1, List.of("last"));
    }
    Path model = saved.resolve("model.safetensors");
    byte[] good = Files.readAllBytes(model);

    byte[] flipped = good.clone();
    flipped[good.length - 3] ^= 1;
    Files.write(model, flipped);
    refuses(saved, model + " is damaged: its checksum");

    Files.write(model, Arrays.copyOf(good, good.length - 1));
    refuses(saved, model + " is damaged: it has " + (good.length - 1) + " bytes, but " + good.length + " were saved");

    Files.delete(model);
    refuses(saved, model + " is missing");

    Files.write(model, good);
    Files.writeString(saved.resolve("about.json"), "{\"a\" : 2}");
    assertThatThrownBy(() -> Checkpoint.open(saved).document("about", JsonNode.class))
        .isInstanceOf(CheckpointException.class)
        .hasMessageContaining("about.json is damaged");

    String manifest = Files.readString(saved.resolve("manifest.json"));
    Files.writeString(saved.resolve("manifest.json"), manifest.replace("\"step\" : 1", "\"step\" : 2"));
    assertThatThrownBy(() -> Checkpoint.open(saved)).hasMessageContaining("manifest.json is damaged: its checksum");
    Files.writeString(saved.resolve("manifest.json"), manifest.replace("checksum", "sum"));
    assertThatThrownBy(() -> Checkpoint.open(saved)).hasMessageContaining("manifest.json is damaged: its checksum");
    Files.writeString(saved.resolve("manifest.json"), "{\"format\": 1, \"st");
    assertThatThrownBy(() -> Checkpoint.open(saved)).hasMessageContaining("manifest.json is damaged");
    Files.writeString(saved.resolve("manifest.json"), "{\"format\": 99, \"step\": 1, \"new\": {}}");
    assertThatThrownBy(() -> Checkpoint.open(saved)).hasMessageContaining("format 99 of a newer version");
    Files.writeString(saved.resolve("manifest.json"), "{\"name\": \"of something else\"}");
    assertThatThrownBy(() -> Checkpoint.open(saved)).hasMessageContaining("is not the manifest of a checkpoint of molfuse");
    Files.delete(saved.resolve("manifest.json"));
    assertThatThrownBy(() -> Checkpoint.open(saved)).hasMessageContaining("no checkpoint at " + saved);
    Files.writeString(folder.resolve("last"), "../../etc");
    assertThatThrownBy(() -> RunDirectory.resolve(folder, "last")).hasMessageContaining("last is damaged");
    assertThatThrownBy(() -> RunDirectory.resolve(folder.resolve("nowhere"), "last"))
        .hasMessageContaining("no such folder");
  }

  private static void refuses(Path checkpoint, String message) {
    try (PointerScope scope = new PointerScope()) {
      Map<String, Tensor> into = tensors();
      assertThatThrownBy(() -> Checkpoint.open(checkpoint).tensors("model", into))
          .isInstanceOf(CheckpointException.class)
          .hasMessageContaining(message);
    }
  }

  @Test
  void malformedSafetensorsAreRefused() throws IOException {
    Map<String, Tensor> two = Map.of("x", torch.zeros(2));
    Path file = folder.resolve("bad.safetensors");
    List<String> headers =
        List.of(
            "not json",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 9]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [-2], \"data_offsets\": [0, 8]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [-8, 0]}}",
            "{\"x\": {\"dtype\": \"F31\", \"shape\": [2], \"data_offsets\": [0, 8]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904, 4], \"data_offsets\": [0, 8]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]},"
                + " \"y\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
            "{\"x\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]},"
                + " \"x\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}",
            "{\"x\": 3}");
    for (String header : headers) {
      byte[] text = header.getBytes(StandardCharsets.UTF_8);
      Files.write(file, ByteBuffer.allocate(8 + text.length + 8).order(ByteOrder.LITTLE_ENDIAN)
          .putLong(text.length).put(text).array());
      assertThatThrownBy(() -> Safetensors.readInto(file, two))
          .as(header)
          .isInstanceOf(CheckpointException.class)
          .hasMessageContaining("bad.safetensors is damaged");
    }
    Files.write(file, new byte[] {1, 2, 3});
    assertThatThrownBy(() -> Safetensors.readInto(file, two)).hasMessageContaining("only 3 bytes");
    Files.write(file, ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(1L << 60).array());
    assertThatThrownBy(() -> Safetensors.readInto(file, two)).hasMessageContaining("its header claims");
    assertThatThrownBy(() -> Safetensors.readInto(folder.resolve("none"), two)).hasMessageContaining("there is no such file");
  }

  @Test
  void otherShapesTypesAndNamesAreRefused() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      Path file = folder.resolve("model.safetensors");
      Safetensors.write(file, Map.of("x", torch.zeros(2, 3)), Map.of());
      assertThatThrownBy(() -> Safetensors.readInto(file, Map.of("x", torch.zeros(3, 2))))
          .hasMessage(file + " holds x as F32 [2, 3], but the model needs F32 [3, 2]");
      assertThatThrownBy(() -> Safetensors.readInto(file, Map.of("x", torch.zeros(2, 3).to(ScalarType.Double))))
          .hasMessageContaining("needs F64 [2, 3]");
      assertThatThrownBy(() -> Safetensors.readInto(file, Map.of())).hasMessageContaining("does not have");
      assertThatThrownBy(() -> Safetensors.readInto(file, Map.of("x", torch.zeros(2, 3), "y", torch.zeros(1))))
          .hasMessageContaining("lacks the tensor y");
    }
  }

  @Test
  void failedSaveLeavesTheEarlierCheckpoint() throws IOException {
    try (PointerScope scope = new PointerScope()) {
      Path first = save(1, List.of("last"));
      RunDirectory run = RunDirectory.prepare(folder);
      // A document that cannot be written stands for a disk that fills up half way.
      Map<String, Object> documents = new LinkedHashMap<>();
      documents.put("good", 1);
      documents.put("bad", new Object());
      assertThatThrownBy(
              () -> run.save(2, new Checkpoint.Content(documents, Map.of("model", tensors())), List.of("last")))
          .isInstanceOf(CheckpointException.class)
          .hasMessageContaining("cannot save the checkpoint " + folder.resolve("step-00000002"))
          .hasMessageContaining("earlier checkpoint " + first + " is untouched");
      assertThat(folder.resolve("step-00000002")).doesNotExist();
      assertThat(folder.resolve(".saving")).doesNotExist();
      Checkpoint.open(RunDirectory.resolve(folder, "last")).tensors("model", tensors());
    }
  }

  @Test
  void folderThatCannotBeMadeIsRefused() throws IOException {
    Path file = Files.createFile(folder.resolve("file"));
    assertThatThrownBy(() -> RunDirectory.prepare(file.resolve("run")))
        .isInstanceOf(CheckpointException.class)
        .hasMessageContaining("cannot write to the output folder " + file.resolve("run"));
    assertThatThrownBy(() -> RunDirectory.prepare(file)).hasMessageContaining("in the way");
  }

  @Test
  void aFolderThatWasMadeForNothingGoesAgain() throws IOException {
    Path path = folder.resolve("a/b");
    try (RunDirectory run = RunDirectory.prepare(path)) {
      assertThat(run.tryLock()).isTrue();
      try (RunDirectory second = RunDirectory.prepare(path)) {
        assertThat(second.tryLock()).isFalse();
      }
      assertThat(path).isDirectory();
    }
    assertThat(folder.resolve("a")).doesNotExist();

    Files.createDirectory(folder.resolve("a"));
    try (RunDirectory run = RunDirectory.prepare(path)) {
      assertThat(run.tryLock()).isTrue();
    }
    assertThat(path).doesNotExist();
    assertThat(folder.resolve("a")).isDirectory();

    try (RunDirectory run = RunDirectory.prepare(path)) {
      assertThat(run.tryLock()).isTrue();
      Files.createFile(path.resolve("notes"));
    }
    assertThat(path.resolve("notes")).exists();
    try (RunDirectory run = RunDirectory.prepare(path)) {
      assertThat(run.tryLock()).isTrue();
    }
    assertThat(path).isDirectory();
  }

  @Test
  void aFolderThatIsTakenAwayIsNotLocked() throws IOException {
    Path path = folder.resolve("run");
    try (RunDirectory run = RunDirectory.prepare(path);
        RunDirectory late = RunDirectory.prepare(path)) {
      assertThat(run.tryLock()).isTrue();
      run.close();
      assertThat(path).doesNotExist();
      assertThat(late.tryLock()).isFalse();
    }
  }

  @Test
  void aLabelCanBePointedAtACheckpointThatIsThere() {
    RunDirectory run = RunDirectory.prepare(folder);
    Path first = run.save(1, new Checkpoint.Content(Map.of("state", 1), Map.of()), List.of("last", "best"));
    Path second = run.save(2, new Checkpoint.Content(Map.of("state", 2), Map.of()), List.of("last"));
    run.point(RunDirectory.BEST, second);
    assertThat(RunDirectory.resolve(folder.resolve("best"))).isEqualTo(second);
    run.save(3, new Checkpoint.Content(Map.of("state", 3), Map.of()), List.of("last"));
    assertThat(second).isDirectory();
    assertThat(first).doesNotExist();
  }
}
