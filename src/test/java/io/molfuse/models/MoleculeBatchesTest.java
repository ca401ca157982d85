// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.chem.Vocabulary;
import io.molfuse.train.DataLoader;
import io.molfuse.train.OneThread;
import io.molfuse.train.StagingRing;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class MoleculeBatchesTest {
  private static final int[] ENTRIES = IntStream.range(0, 20).map(i -> 31 - i).toArray();

  @TempDir Path folder;

  @Test
  void everyEpochSeesEveryEntryOnceInAnOrderOfItsOwn() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    MoleculeBatches batches = new MoleculeBatches(drugs, ENTRIES, 6, true, 3);
    assertThat(batches.batchesPerEpoch()).isEqualTo(4);
    int[] first = epoch(batches, 0);
    int[] second = epoch(batches, 1);
    assertThat(first).containsExactlyInAnyOrder(ENTRIES);
    assertThat(second).containsExactlyInAnyOrder(ENTRIES).isNotEqualTo(first);
    assertThat(epoch(new MoleculeBatches(drugs, ENTRIES, 6, true, 3), 1)).isEqualTo(second);
    assertThat(epoch(new MoleculeBatches(drugs, ENTRIES, 6, true, 4), 1)).isNotEqualTo(second);
    assertThat(epoch(new MoleculeBatches(drugs, ENTRIES, 6, false, 3), 1)).isEqualTo(ENTRIES);
  }

  private static int[] epoch(MoleculeBatches batches, long epoch) {
    return IntStream.range(0, 4).flatMap(i -> Arrays.stream(batches.batch(4 * epoch + i).indices())).toArray();
  }

  @Test
  void theLoaderMakesTheSameBatches() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    MoleculeBatches batches = new MoleculeBatches(drugs, ENTRIES, 6, true, 3);
    try (DataLoader<GraphBatch> loader = MoleculeBatches.loader(drugs, ENTRIES, 6, true, 3).workers(3).build()) {
      assertThat(loader.batchesPerEpoch()).isEqualTo(batches.batchesPerEpoch());
      for (int i = 0; i < 12; i++) {
        GraphBatch expected = batches.batch(i);
        GraphBatch made = loader.batch(i);
        assertThat(made.indices()).isEqualTo(expected.indices());
        assertThat(made.tokens()).isEqualTo(expected.tokens());
        assertThat(made.features()).isEqualTo(expected.features());
        assertThat(made.source()).isEqualTo(expected.source());
      }
    }
  }

  @Test
  void stagedBatchesAreTheSameTensors() throws InterruptedException {
    GraphBatch batch = TestMolecules.drugs(folder).collate(ENTRIES);
    try (StagingRing ring = new StagingRing(new Device(DeviceType.CPU), 1);
        PointerScope scope = new PointerScope()) {
      VaeBatch expected = VaeBatch.of(batch);
      StagingRing.Slot slot = ring.acquire();
      VaeBatch.stage(batch, slot);
      VaeBatch staged = VaeBatch.of(slot.submit().take());
      for (List<Tensor> pair :
          List.of(
              List.of(staged.nodes(), expected.nodes()),
              List.of(staged.graph().rowPtr(), expected.graph().rowPtr()),
              List.of(staged.graph().source(), expected.graph().source()),
              List.of(staged.graph().edgeId(), expected.graph().edgeId()),
              List.of(staged.graphPtr(), expected.graphPtr()),
              List.of(staged.inputs(), expected.inputs()),
              List.of(staged.targets(), expected.targets()))) {
        assertThat(pair.get(0).equal(pair.get(1))).isTrue();
      }
    }
  }

  @Test
  void stagedLoadersGiveTheSameBatches() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    try (Device cpu = new Device(DeviceType.CPU);
        StagingRing ring = new StagingRing(cpu, 2);
        DataLoader<GraphBatch> plain = MoleculeBatches.loader(drugs, ENTRIES, 6, true, 3).build();
        DataLoader<StagedBatch> staged = MoleculeBatches.staged(drugs, ENTRIES, 6, true, 3, ring).workers(2).build()) {
      for (int i = 0; i < 8; i++) {
        try (PointerScope scope = new PointerScope();
            StagedBatch batch = staged.batch(i)) {
          VaeBatch expected = VaeBatch.of(plain.batch(i));
          assertThat(batch.size()).isEqualTo(expected.graphPtr().numel() - 1);
          VaeBatch found = VaeBatch.of(batch.transfer().take());
          assertThat(found.inputs().equal(expected.inputs())).isTrue();
          assertThat(found.nodes().equal(expected.nodes())).isTrue();
        }
      }
    }
  }

  /** The token sequences of an epoch of streamed molecules, in its order. */
  private static List<String> sequences(DataLoader<StagedBatch> loader, long epoch) throws InterruptedException {
    List<String> sequences = new ArrayList<>();
    try (DataLoader.Epoch<StagedBatch> batches = loader.epoch(epoch)) {
      for (StagedBatch batch = batches.next(); batch != null; batch = batches.next()) {
        try (PointerScope scope = new PointerScope();
            StagedBatch taken = batch) {
          Tensor tokens = taken.transfer().take().get(4);
          long[] values = new long[(int) tokens.numel()];
          new LongPointer(tokens.data_ptr()).get(values);
          int width = values.length / taken.size();
          for (int i = 0; i < taken.size(); i++) {
            long[] row = Arrays.copyOfRange(values, i * width, (i + 1) * width);
            sequences.add(Arrays.toString(Arrays.stream(row).filter(token -> token != Vocabulary.PAD).toArray()));
          }
        }
      }
    }
    return sequences;
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void streamedEpochsHaveEveryMoleculeOnce(int workers) throws InterruptedException {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    MoleculeStream stream = MoleculeStream.open(folder.resolve("molecules.smi"), new MoleculeDataset.Options().maxLength(64));
    BitSet entries = new BitSet();
    Arrays.stream(ENTRIES).forEach(entries::set);
    List<String> expected =
        entries.stream().mapToObj(drugs::tokens).map(tokens -> Arrays.toString(Arrays.stream(tokens).asLongStream().toArray())).toList();
    try (Device cpu = new Device(DeviceType.CPU);
        StagingRing ring = new StagingRing(cpu, 4);
        DataLoader<StagedBatch> inOrder = MoleculeBatches.streamed(stream, entries, 6, 1, 3, ring).workers(workers).build();
        DataLoader<StagedBatch> mixed = MoleculeBatches.streamed(stream, entries, 6, 8, 3, ring).workers(workers).build()) {
      assertThat(inOrder.batchesPerEpoch()).isEqualTo(4);
      assertThat(sequences(inOrder, 0)).isEqualTo(expected);
      List<String> first = sequences(mixed, 0);
      assertThat(first).containsExactlyInAnyOrderElementsOf(expected).isNotEqualTo(expected);
      assertThat(sequences(mixed, 1)).containsExactlyInAnyOrderElementsOf(expected).isNotEqualTo(first);
      assertThat(sequences(mixed, 0)).isEqualTo(first);
    }
  }

  @Test
  void badSettingsAreNamed() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    assertThatThrownBy(() -> new MoleculeBatches(drugs, new int[0], 6, true, 3)).hasMessageContaining("entries");
    assertThatThrownBy(() -> new MoleculeBatches(drugs, ENTRIES, 0, true, 3)).hasMessageContaining("batchSize");
  }
}
