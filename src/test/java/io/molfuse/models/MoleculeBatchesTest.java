// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.DataLoader;
import io.molfuse.train.OneThread;
import io.molfuse.train.StagingRing;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

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
  void badSettingsAreNamed() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    assertThatThrownBy(() -> new MoleculeBatches(drugs, new int[0], 6, true, 3)).hasMessageContaining("entries");
    assertThatThrownBy(() -> new MoleculeBatches(drugs, ENTRIES, 0, true, 3)).hasMessageContaining("batchSize");
  }
}
