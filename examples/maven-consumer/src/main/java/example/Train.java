// SPDX-License-Identifier: Apache-2.0
package example;

import io.molfuse.ops.Attention;
import io.molfuse.train.AdamW;
import io.molfuse.train.Autocast;
import io.molfuse.train.GradScaler;
import io.molfuse.train.ParameterGroups;
import io.molfuse.train.Seeds;
import io.molfuse.train.StepScope;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.EmbeddingImpl;
import org.bytedeco.pytorch.LinearImpl;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Learns to say, at each position of a random sequence, which token stood {@value #DISTANCE} positions before. A causal attention finds it
 * by a learned bias for each distance. Ends with status 1 if the loss does not fall.
 */
public class Train {
  private static final int TOKENS = 16;
  private static final int LENGTH = 24;
  private static final int DISTANCE = 3;
  private static final int HEADS = 2;
  private static final int HEAD_SIZE = 16;
  private static final int WIDTH = HEADS * HEAD_SIZE;
  private static final int BATCH = 16;
  private static final int STEPS = 60;

  public static void main(String[] args) {
    Seeds.seedLibtorch(1);
    try (PointerScope run = new PointerScope()) {
      EmbeddingImpl embedding = new EmbeddingImpl(TOKENS, WIDTH);
      LinearImpl projection = new LinearImpl(WIDTH, 3 * WIDTH);
      LinearImpl head = new LinearImpl(WIDTH, TOKENS);
      Tensor bias = torch.zeros(HEADS, 2 * LENGTH + 1).set_requires_grad(true);
      ParameterGroups groups = new ParameterGroups()
          .add("layers", 1.0, 0.01, ParameterGroups.named("embedding.", embedding))
          .add("projection", 1.0, 0.01, ParameterGroups.named("projection.", projection))
          .add("head", 1.0, 0.01, ParameterGroups.named("head.", head))
          .add("bias", 10.0, 0.0, Map.of("bias", bias));
      double first = 0;
      double last = 0;
      try (AdamW optimizer = new AdamW(groups, AdamW.Settings.USUAL); GradScaler scaler = GradScaler.options().build()) {
        for (int step = 1; step <= STEPS; step++) {
          try (StepScope scope = new StepScope()) {
            Tensor tokens = torch.rand(BATCH, LENGTH).mul(new Scalar(TOKENS)).to(ScalarType.Long);
            Tensor loss;
            try (Autocast half = Autocast.on(DeviceType.CPU, ScalarType.Half)) {
              Tensor qkv = projection.forward(embedding.forward(tokens)).view(BATCH, LENGTH, 3 * HEADS, HEAD_SIZE).transpose(1, 2);
              Tensor attended = Attention.apply(
                  qkv.narrow(1, 0, HEADS), qkv.narrow(1, HEADS, HEADS), qkv.narrow(1, 2 * HEADS, HEADS),
                  Attention.options().causal(true).relativeBias(bias));
              Tensor logits = head.forward(attended.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH));
              loss = torch.cross_entropy_loss(
                  logits.narrow(1, DISTANCE, LENGTH - DISTANCE).reshape(-1, TOKENS).to(ScalarType.Float),
                  tokens.narrow(1, 0, LENGTH - DISTANCE).reshape(-1));
            }
            optimizer.dropGradients();
            scaler.scale(loss).backward();
            scaler.step(optimizer, 3e-3);
            scaler.update();
            last = loss.item_double();
            if (step == 1) first = last;
            if (step == 1 || step % 10 == 0) System.out.printf("step %d: loss %.3f%n", step, last);
          }
        }
      }
      // Guessing costs ln(TOKENS).
      if (!(last < 0.5 * first && last < 0.5 * Math.log(TOKENS))) {
        System.err.println("the loss did not fall");
        System.exit(1);
      }
    }
  }
}
