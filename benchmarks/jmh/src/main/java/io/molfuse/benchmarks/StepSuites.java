// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.Selfies;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.GenerationOptions;
import io.molfuse.models.Generator;
import io.molfuse.models.ModelConfig;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.VaeBatch;
import io.molfuse.models.VaeTask;
import io.molfuse.ops.Molfuse;
import io.molfuse.ops.Reparameterize;
import io.molfuse.train.AdamW;
import io.molfuse.train.BatchSource;
import io.molfuse.train.Checkpointing;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.Losses;
import io.molfuse.train.Seeds;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingConfig;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.AdamWOptions;
import org.bytedeco.pytorch.AutoGradMode;
import org.bytedeco.pytorch.CompilationUnit;
import org.bytedeco.pytorch.Function;
import org.bytedeco.pytorch.Graph;
import org.bytedeco.pytorch.IValue;
import org.bytedeco.pytorch.IValueVector;
import org.bytedeco.pytorch.QualifiedName;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Symbol;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.Value;
import org.bytedeco.pytorch.ValueVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;

/** A training step and what surrounds the model in it. */
@SuppressWarnings("try") // A scope does its work by being open.
final class StepSuites {
  private static final double BETA = 1e-4;
  private static final double RATE = 1e-4;
  private static final double DECAY = 0.01;

  /** Calls in a row without Java in between. */
  private static final int CHAIN = 500;

  private static final int LOOP_STEPS = 10;

  /** Molecules of a batch of the largest model, whose step then takes about a second on two cores. */
  private static final int FEW = 4;

  private final Settings settings;

  StepSuites(Settings settings) {
    this.settings = settings;
  }

  List<Benchmark> all() {
    List<Benchmark> all = new ArrayList<>();
    all.add(
        Benchmark.of("step", "training step, preset small, batch " + Molecules.BATCH, () -> trainingStep(preset(0.1), Molecules.BATCH, false))
            .with("dtype", "f32"));
    all.add(
        Benchmark.of("step", "training step, preset large, batch " + FEW, () -> trainingStep(tenLayers(256, 8), FEW, true))
            .with("dtype", "f32")
            .quick(false));
    all.add(Benchmark.of("step", "a token of " + Molecules.BATCH + " generated molecules, preset small", this::decoding).with("dtype", "f32"));
    all.add(Benchmark.of("step", "clip and AdamW, preset small", () -> optimizer(preset(0.1))).with("dtype", "f32"));
    all.add(Benchmark.of("step", "clip and AdamW, ten layers of width 2048", () -> optimizer(tenLayers(256, 8))).with("dtype", "f32").quick(false));
    all.add(Benchmark.of("step", "step of a model of width 128 in Trainer and in a hand-written loop", this::loops).with("dtype", "f32"));
    if (!settings.cuda()) {
      all.add(Benchmark.of("call", "reparameterize [1,4] from Java and from TorchScript's interpreter", this::calls).with("dtype", "f32"));
      all.add(Benchmark.of("memory", "loss and gradients, ten encoder layers kept and computed twice", this::checkpointing).with("dtype", "f32"));
    }
    return all;
  }

  /** The small preset's model. */
  private static ModelConfig preset(double dropout) {
    return new ModelConfig(
        new ModelConfig.Encoder(4, 4, 8, 64, dropout),
        new ModelConfig.Latent(1, 128, 4, dropout),
        new ModelConfig.Decoder(4, 8, 256, 1024, 128, 127, dropout));
  }

  private static ModelConfig tenLayers(int channels, int selected) {
    return new ModelConfig(
        new ModelConfig.Encoder(10, selected, 8, channels, 0.1),
        new ModelConfig.Latent(1, 128, 8, 0.1),
        new ModelConfig.Decoder(6, 8, 256, 1024, 128, 127, 0.1));
  }

  private MolecularVae model(Comparison comparison, ModelConfig config) {
    DeviceType device = settings.cuda() ? DeviceType.CUDA : DeviceType.CPU;
    MolecularVae model = new MolecularVae(config, Molecules.dataset().vocabulary().size(), 1, device);
    return comparison.closing(model, model::close);
  }

  private static TensorVector tensors(MolecularVae model) {
    TensorVector tensors = new TensorVector();
    model.parameters().parameters().forEach(each -> tensors.push_back(each.tensor()));
    return tensors;
  }

  private static org.bytedeco.pytorch.AdamW libtorchAdamW(TensorVector tensors) {
    AdamWOptions options = new AdamWOptions(RATE);
    options.weight_decay().put(DECAY);
    return new org.bytedeco.pytorch.AdamW(tensors, options);
  }

  /** Loss, gradients, clipping and AdamW on a batch that is in memory: fused operators and optimizer, and libtorch's own. */
  private Comparison trainingStep(ModelConfig config, int molecules, boolean checkpointing) {
    Comparison comparison = new Comparison();
    MolecularVae model = model(comparison, config).checkpointing(checkpointing);
    VaeBatch batch = VaeBatch.of(Molecules.batch(molecules), settings.device());
    comparison.cost(cost(config, batch, model.parameters().count()));
    double disagreement = disagreement(model, batch);
    comparison.disagreement("eager", disagreement);

    AdamW fused = new AdamW(model.parameters(), Map.of(), DECAY);
    comparison.closing(fused, fused::close);
    long[] seed = {0};
    comparison.add(Way.ours(() -> {
      try (PointerScope step = new PointerScope()) {
        model.parameters().dropGradients();
        model.loss(batch, BETA, seed[0]++).total().backward();
        fused.clipGradients(1);
        fused.step(RATE);
        settings.synchronize();
      }
    }));
    if (disagreement > 1e-3) {
      return comparison.absent("eager", "differs by " + disagreement + " of the largest number");
    }
    TensorVector tensors = tensors(model);
    org.bytedeco.pytorch.AdamW optimizer = libtorchAdamW(tensors);
    return comparison
        .measuringMemory()
        .add(Way.peer("eager", () -> unfused(() -> {
          try (PointerScope step = new PointerScope()) {
            optimizer.zero_grad();
            model.loss(batch, BETA, seed[0]++).total().backward();
            torch.clip_grad_norm_(tensors, 1);
            optimizer.step();
            settings.synchronize();
          }
        })));
  }

  private static void unfused(Runnable work) {
    Molfuse.setFused(false);
    try {
      work.run();
    } finally {
      Molfuse.setFused(true);
    }
  }

  /** Of the gradients of both, without dropout and noise, which they draw otherwise; beta is 1, for the Kullback-Leibler term to count. */
  private static double disagreement(MolecularVae model, VaeBatch batch) {
    try (PointerScope scope = new PointerScope()) {
      model.parameters().dropGradients();
      model.evaluate(batch, 1).total().backward();
      List<Tensor> ours = new ArrayList<>();
      model.parameters().parameters().forEach(each -> ours.add(each.tensor().grad().clone()));
      model.parameters().dropGradients();
      unfused(() -> model.evaluate(batch, 1).total().backward());
      // Of all parameters: some have gradients that are nothing but rounding errors, as the bias of keys.
      double largest = 0;
      double difference = 0;
      for (int n = 0; n < ours.size(); n++) {
        Tensor theirs = model.parameters().parameters().get(n).tensor().grad();
        largest = Math.max(largest, theirs.abs().max().item_double());
        difference = Math.max(difference, ours.get(n).sub(theirs).abs().max().item_double());
      }
      model.parameters().dropGradients();
      return difference / largest;
    }
  }

  /** Sampling from the prior with a model that is not trained, whose sequences end late. */
  private Comparison decoding() {
    Comparison comparison = new Comparison();
    MolecularVae model = model(comparison, preset(0.1));
    Vocabulary vocabulary = Molecules.dataset().vocabulary();
    Generator cached = new Generator(model, vocabulary);
    Generator whole = new Generator(model, vocabulary).cached(false);
    GenerationOptions options = GenerationOptions.seeded(1);
    List<String> ours = cached.sample(Molecules.BATCH, options);
    double tokens = ours.stream().mapToDouble(text -> Selfies.length(text) + 1).sum();
    // A rounding error may choose another token, after which nothing is the same.
    List<String> theirs = whole.sample(Molecules.BATCH, options);
    comparison.disagreement("no cache", IntStream.range(0, ours.size()).filter(n -> !ours.get(n).equals(theirs.get(n))).count() / (double) ours.size());
    return comparison
        .add(Way.ours("with cache", () -> cached.sample(Molecules.BATCH, options)).units(tokens))
        .add(Way.peer("no cache", () -> whole.sample(Molecules.BATCH, options)).units(tokens));
  }

  private static Cost cost(ModelConfig config, VaeBatch batch, double parameters) {
    ModelConfig.Encoder encoder = config.encoder();
    ModelConfig.Decoder decoder = config.decoder();
    double nodes = batch.nodes().size(0);
    double graphs = batch.graphPtr().numel() - 1.0;
    double width = encoder.width();
    double linear = nodes * ModelConfig.NODE_FEATURES * 4 * width + (encoder.layers() - 1) * nodes * width * 4 * width;
    double attention = encoder.layers() * (double) batch.graph().numEdges() * width;
    linear += graphs * (2.0 * encoder.selected() * width * config.latent().size()
        + (double) config.latent().size() * config.latent().memorySlots() * decoder.hidden());
    Tensor lengths = batch.targets().ne(new Scalar(0)).sum(1L).to(torch.ScalarType.Double);
    double tokens = lengths.sum().item_double();
    double pairs = lengths.mul(lengths.add(new Scalar(1.0))).sum().item_double() / 2;
    double hidden = decoder.hidden();
    double slots = config.latent().memorySlots();
    linear += decoder.layers()
        * (tokens * hidden * (6 * hidden + 2.0 * decoder.feedForward()) + graphs * slots * hidden * 2 * hidden);
    attention += decoder.layers() * (pairs + tokens * slots) * hidden;
    linear += tokens * hidden * Molecules.dataset().vocabulary().size();
    return Cost.trainingStep(linear, attention, parameters);
  }

  private Comparison optimizer(ModelConfig config) {
    Comparison comparison = new Comparison();
    MolecularVae model = model(comparison, config);
    model.parameters().parameters().forEach(each -> each.tensor().mutable_grad().put(torch.randn_like(each.tensor())));
    TensorVector tensors = tensors(model);
    org.bytedeco.pytorch.AdamW preset = libtorchAdamW(tensors);
    AdamW fused = new AdamW(model.parameters(), Map.of(), DECAY);
    comparison.closing(fused, fused::close);
    return comparison
        .cost(Cost.clipAndAdamW(model.parameters().count()))
        .add(Way.ours(() -> {
          try (PointerScope step = new PointerScope()) {
            fused.clipGradients(1);
            fused.step(RATE);
            settings.synchronize();
          }
        }))
        .add(Way.peer("libtorch", () -> {
          try (PointerScope step = new PointerScope()) {
            torch.clip_grad_norm_(tensors, 1);
            preset.step();
            settings.synchronize();
          }
        }));
  }

  /** The same batches again and again, so that nothing but the loop differs. */
  private static BatchSource<GraphBatch> source(List<GraphBatch> made) {
    return new BatchSource<>() {
      @Override
      public long batchesPerEpoch() {
        return made.size();
      }

      @Override
      public GraphBatch batch(long index) {
        return made.get((int) (index % made.size()));
      }
    };
  }

  private Comparison loops() {
    Comparison comparison = new Comparison();
    ModelConfig config =
        new ModelConfig(
            new ModelConfig.Encoder(3, 3, 4, 32, 0),
            new ModelConfig.Latent(1, 64, 4, 0.1),
            new ModelConfig.Decoder(3, 4, 128, 512, 128, 64, 0));
    MolecularVae model = model(comparison, config);
    List<GraphBatch> made = Molecules.batches(LOOP_STEPS);
    VaeTask task = new VaeTask(model, BETA);
    LearningRateSchedule constant = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1);
    TrainingConfig training = new TrainingConfig(0, LOOP_STEPS, 0, RATE, Map.of(), constant, DECAY, 1, 1, 0, 1e9, 1);
    AdamW optimizer = new AdamW(model.parameters(), Map.of(), DECAY);
    comparison.closing(optimizer, optimizer::close);
    return comparison
        .add(
            Way.ours("Trainer", () -> {
                  try (Trainer<GraphBatch> trainer = new Trainer<>(task, source(made), training)) {
                    trainer.run();
                  }
                })
                .units(LOOP_STEPS))
        .add(
            Way.peer("hand-written loop", () -> {
                  for (int i = 0; i < LOOP_STEPS; i++) {
                    try (PointerScope step = new PointerScope()) {
                      model.parameters().dropGradients();
                      Losses losses = task.train(made.get(i), Seeds.mix(1, i, 0));
                      losses.total().backward();
                      optimizer.clipGradients(1);
                      losses.read();
                      optimizer.step(RATE);
                    }
                  }
                })
                .units(LOOP_STEPS));
  }

  /** So many calls of an operator, one on the result of the other. */
  private static Graph chain() {
    Graph graph = new Graph();
    Value out = graph.addInput("mean");
    Value logVar = graph.addInput("log_var");
    Value seed = graph.insertConstant(new IValue(1L));
    Symbol operator = Symbol.fromQualString("molfuse::reparameterize");
    for (int i = 0; i < CHAIN; i++) {
      Value offset = graph.insertConstant(new IValue((long) i));
      out = graph.insertNode(graph.create(operator, new ValueVector(out, logVar, seed, offset), 1)).output();
    }
    graph.registerOutput(out);
    return graph;
  }

  /** One fused operator, without gradient, on tensors so small that only the call counts. */
  private Comparison calls() {
    Tensor mean = torch.zeros(1, 4);
    Tensor logVar = torch.zeros(1, 4);
    CompilationUnit unit = new CompilationUnit();
    Function chain = unit.create_function(new QualifiedName("chain"), chain());
    return new Comparison()
        .add(
            Way.ours("from Java, with its scope", () -> {
                  try (AutoGradMode off = new AutoGradMode(false)) {
                    for (int i = 0; i < CHAIN; i++) {
                      try (PointerScope call = new PointerScope()) {
                        Reparameterize.apply(mean, logVar, 1, i);
                      }
                    }
                  }
                })
                .units(CHAIN))
        .add(
            Way.peer("from C++", () -> {
                  try (PointerScope call = new PointerScope();
                      AutoGradMode off = new AutoGradMode(false)) {
                    chain.run(new IValueVector(new IValue(mean), new IValue(logVar)));
                  }
                })
                .units(CHAIN));
  }

  private Comparison checkpointing() {
    Comparison comparison = new Comparison().measuringMemory();
    ModelConfig config =
        new ModelConfig(
            new ModelConfig.Encoder(10, 8, 8, settings.quick() ? 16 : 64, 0.1),
            new ModelConfig.Latent(1, 64, 4, 0.1),
            new ModelConfig.Decoder(1, 4, 64, 64, 128, 64, 0.1));
    MolecularVae model = model(comparison, config);
    VaeBatch batch = VaeBatch.of(Molecules.batches(1).get(0), settings.device());
    for (boolean twice : new boolean[] {true, false}) {
      String name = twice ? "layers computed twice" : "layers kept";
      Runnable call =
          () -> {
            model.checkpointing(twice);
            try (PointerScope scope = new PointerScope()) {
              model.parameters().dropGradients();
              Checkpointing.backward(model.loss(batch, BETA, 1).total());
            }
          };
      comparison.add(twice ? Way.ours(name, call) : Way.peer(name, call));
    }
    return comparison;
  }
}
