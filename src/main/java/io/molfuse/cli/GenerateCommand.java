// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.GenerationMetrics;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.Selfies;
import io.molfuse.chem.SelfiesException;
import io.molfuse.models.GenerationOptions;
import io.molfuse.models.Generator;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.train.RunDirectory;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.bytedeco.pytorch.global.torch.DeviceType;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** Molecules from a trained model. */
@Command(
    name = "generate",
    description = "Generates molecules with a trained model: one SMILES a line on standard output.")
final class GenerateCommand implements Callable<Integer> {
  private final Console console;

  @Mixin private CommonOptions common;
  @Mixin private DeviceOptions device;

  @Option(
      names = "--checkpoint",
      required = true,
      paramLabel = "DIR",
      description = "Output folder of a training run (its best checkpoint is taken), or one checkpoint in it.")
  private Path checkpoint;

  @Option(
      names = {"-n", "--count"},
      paramLabel = "N",
      defaultValue = "100",
      description = "How many molecules (default: ${DEFAULT-VALUE}).")
  private int count;

  @Option(
      names = "--temperature",
      paramLabel = "T",
      defaultValue = "1.0",
      description = "Divides the logits; 0 takes the most likely token (default: ${DEFAULT-VALUE}).")
  private double temperature;

  @Option(names = "--top-k", paramLabel = "K", defaultValue = "0", description = "Draw from the K most likely tokens only.")
  private int topK;

  @Option(
      names = "--top-p",
      paramLabel = "P",
      defaultValue = "1.0",
      description = "Draw from the most likely tokens that together have probability P.")
  private double topP;

  @Option(
      names = "--seed",
      paramLabel = "S",
      defaultValue = "0",
      description = "The same seed gives the same molecules (default: ${DEFAULT-VALUE}).")
  private long seed;

  @Option(
      names = "--condition",
      paramLabel = "NAME=VALUE,...",
      description = {
        "Ask for molecules with these properties, such as logP=2.5,weight=300; those the model knows and that are not named are left open.",
        "A model knows those it was trained with: model.condition.properties in docs/configuration.md."
      })
  private String condition;

  @Option(
      names = "--known",
      paramLabel = "FILE",
      description = "SMILES file of known molecules, such as the training data, to measure novelty against.")
  private Path known;

  @Option(
      names = "--json",
      description = "One JSON object a molecule with smiles and selfies, and a last one with event=finished.")
  private boolean json;

  GenerateCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() {
    if (count < 1) {
      throw new UsageException("-n must be at least 1, but is " + count);
    }
    GenerationOptions options = options();
    Map<MolecularProperty, Double> wanted = ConditionOption.parse(condition);
    DeviceType deviceType = device.select();
    VaeCheckpoint saved = VaeCheckpoint.open(checkpoint, RunDirectory.BEST, RunDirectory.LAST);
    // Whatever is wrong with this file is said before anyone waits for molecules.
    KnownMolecules knownMolecules = known == null ? null : known();
    List<String> selfies = new ArrayList<>();
    try (VaeCheckpoint.Loaded loaded = saved.load(deviceType)) {
      ConditionOption.check(wanted, loaded.model(), console);
      new Generator(loaded.model(), loaded.vocabulary())
          .condition(wanted)
          .sample(
              count,
              options,
              batch -> {
                write(batch);
                selfies.addAll(batch);
              });
    }
    GenerationMetrics metrics = GenerationMetrics.ofSelfies(selfies, Selfies.standard(), knownMolecules);
    if (json) {
      Map<String, Object> last = new LinkedHashMap<>();
      last.put("event", "finished");
      last.put("generated", metrics.generated());
      last.put("validity", JsonSteps.finite(metrics.validity()));
      last.put("uniqueness", JsonSteps.finite(metrics.uniqueness()));
      last.put("novelty", JsonSteps.finite(metrics.novelty()));
      console.json(last);
    } else if (knownMolecules == null) {
      console.say(
          "%d molecules: validity %.3f, uniqueness %.3f (--known FILE measures novelty)",
          metrics.generated(), metrics.validity(), metrics.uniqueness());
    } else {
      console.say(
          "%d molecules: validity %.3f, uniqueness %.3f, novelty %.3f",
          metrics.generated(), metrics.validity(), metrics.uniqueness(), metrics.novelty());
    }
    return Main.SUCCESS;
  }

  private KnownMolecules known() {
    MoleculeDataset molecules = MoleculeDataset.load(known, new MoleculeDataset.Options().requireSelfies(false));
    if (molecules.report().total() > 0) {
      console.say("%s", molecules.report());
    }
    return KnownMolecules.of(molecules);
  }

  private void write(List<String> batch) {
    for (String molecule : batch) {
      String smiles = smiles(molecule);
      if (json) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("smiles", smiles);
        line.put("selfies", molecule);
        console.json(line);
      } else {
        console.out().println(smiles);
      }
    }
    console.flush();
  }

  private GenerationOptions options() {
    try {
      return new GenerationOptions(temperature, topK, topP, seed);
    } catch (IllegalArgumentException e) {
      throw new UsageException("--" + e.getMessage().replace('_', '-'));
    }
  }

  /** An empty line stands for tokens that are no molecule. */
  private static String smiles(String selfies) {
    try {
      return Selfies.standard().decode(selfies);
    } catch (SelfiesException e) {
      return "";
    }
  }
}
