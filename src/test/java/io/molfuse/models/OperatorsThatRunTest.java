// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;

import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.Autocast;
import io.molfuse.train.Checkpointing;
import io.molfuse.train.OneThread;
import io.molfuse.train.Precision;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.EdgeVector;
import org.bytedeco.pytorch.Node;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

/** Which operators a training step is made of, read off the history that backward follows. */
@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class OperatorsThatRunTest {
  @TempDir static Path folder;
  private static MoleculeDataset drugs;

  @BeforeAll
  static void load() {
    drugs = TestMolecules.drugs(folder);
  }

  /** How often each kind of node is in a tensor's history. */
  private static Map<String, Integer> history(Tensor tensor) {
    Map<String, Integer> names = new HashMap<>();
    Set<Long> seen = new HashSet<>();
    Deque<Node> open = new ArrayDeque<>();
    open.add(tensor.grad_fn());
    while (!open.isEmpty()) {
      Node node = open.remove();
      if (node == null || node.isNull() || !seen.add(node.address())) {
        continue;
      }
      names.merge(node.name().getString(), 1, Integer::sum);
      EdgeVector edges = node.next_edges();
      for (long i = 0; i < edges.size(); i++) {
        if (edges.get(i).is_valid()) {
          open.add(edges.get(i).function());
        }
      }
    }
    return names;
  }

  private static int count(Map<String, Integer> history, String name) {
    return history.entrySet().stream().filter(entry -> entry.getKey().contains(name)).mapToInt(Map.Entry::getValue).sum();
  }

  private static MolecularVae model() {
    return new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 1);
  }

  @Test
  void aStepIsMadeOfFusedOperatorsAndPoolsEachLayerAtOnce() {
    try (MolecularVae model = model();
        PointerScope scope = new PointerScope()) {
      ModelConfig config = model.config();
      Map<String, Integer> history = history(model.loss(VaeBatch.of(drugs.collate(drugs.entries())), 0.1, 5).total());
      assertThat(count(history, "LinearVaeLossFunction")).as("%s", history).isEqualTo(1);
      assertThat(count(history, "ReparameterizeFunction")).isEqualTo(1);
      assertThat(count(history, "GraphAttentionFunction")).isEqualTo(config.encoder().layers());
      // Norm, activation, dropout and, for the selected ones, pooling of a layer.
      assertThat(count(history, "EncoderEpilogueFunction")).isEqualTo(config.encoder().layers());
      // Self-attention and cross-attention.
      assertThat(count(history, "::AttentionFunction")).isEqualTo(2 * config.decoder().layers());
      // No layer is kept to be pooled later, and nothing is done in steps.
      assertThat(count(history, "LatentConcatFunction")).isZero();
      for (String unfused : new String[] {"Softmax", "NllLoss", "BatchNorm", "IndexSelect", "IndexAdd", "Scatter", "StackBackward"}) {
        assertThat(count(history, unfused)).as(unfused).isZero();
      }
    }
  }

  @Test
  void layersComputedTwiceArePooledAtOnce() {
    try (MolecularVae model = model().checkpointing(true);
        PointerScope scope = new PointerScope()) {
      int before = Checkpointing.pending();
      Tensor loss = model.loss(VaeBatch.of(drugs.collate(drugs.entries())), 0.1, 5).total();
      assertThat(Checkpointing.pending() - before).isEqualTo(model.config().encoder().layers());
      Map<String, Integer> history = history(loss);
      assertThat(count(history, "LatentConcatIntoFunction")).as("%s", history).isPositive();
      assertThat(count(history, "GraphAttentionFunction")).isZero();
      Checkpointing.backward(loss);
    }
  }

  @Test
  void mixedPrecisionComputesInSixteenBits() {
    try (MolecularVae model = model();
        PointerScope scope = new PointerScope()) {
      VaeBatch batch = VaeBatch.of(drugs.collate(drugs.entries()));
      float full = model.evaluate(batch, 0.1).total().item_float();
      try (Autocast region = Precision.BF16.on(null).autocast()) {
        float mixed = model.evaluate(batch, 0.1).total().item_float();
        assertThat(mixed).isNotEqualTo(full).isCloseTo(full, org.assertj.core.api.Assertions.within(0.05f * full));
        assertThat(model.encode(batch).scalar_type().intern()).isEqualTo(org.bytedeco.pytorch.global.torch.ScalarType.BFloat16);
      }
    }
  }
}
