// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.Chemistry;
import io.molfuse.chem.GenerationMetrics;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeException;
import io.molfuse.chem.MoleculeGrid;
import io.molfuse.chem.Selfies;
import io.molfuse.chem.SelfiesException;
import io.molfuse.models.GenerationOptions;
import io.molfuse.models.Generator;
import io.molfuse.models.LatentSpace;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.train.RunDirectory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import org.bytedeco.pytorch.global.torch.DeviceType;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** Molecules from a trained model. */
@Command(
    name = "generate",
    description = {
      "Generates molecules with a trained model: one SMILES a line on standard output.",
      "From the prior, or with --from and --to between two molecules, or with --near around one."
    })
final class GenerateCommand implements Callable<Integer> {
  private static final int PICTURE_COLUMNS = 5;
  private static final int MOST_IN_PICTURE = 100;

  /** How molecules are written. */
  enum Format {
    SMILES,
    CSV,
    JSON;

    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  private static final class Between {
    @Option(names = "--from", required = true, paramLabel = "SMILES", description = "Interpolate from this molecule's latent mean ...")
    private String from;

    @Option(names = "--to", required = true, paramLabel = "SMILES", description = "... to that of this one.")
    private String to;

    @Option(names = "--steps", paramLabel = "N", defaultValue = "10", description = "Points with both ends (default: ${DEFAULT-VALUE}).")
    private int steps;

    @Option(
        names = "--path",
        paramLabel = "PATH",
        defaultValue = "spherical",
        description = "linear, or spherical: along the arc (default: ${DEFAULT-VALUE}).")
    private LatentSpace.Path path;
  }

  private static final class Around {
    @Option(names = "--near", required = true, paramLabel = "SMILES", description = "Decode points around this molecule's latent mean.")
    private String near;

    @Option(
        names = "--radius",
        paramLabel = "R",
        defaultValue = "0.3",
        description = "Their distance, in standard deviations of the prior along each dimension (default: ${DEFAULT-VALUE}).")
    private double radius;
  }

  private static final class Start {
    @ArgGroup(exclusive = false)
    private Between between;

    @ArgGroup(exclusive = false)
    private Around around;
  }

  private final Console console;

  @Mixin private CommonOptions common;
  @Mixin private DeviceOptions device;
  @Mixin private SamplingOptions sampling;

  @ArgGroup private Start start;

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
      description = "How many molecules (default: ${DEFAULT-VALUE}; with --from, --steps decides).")
  private int count;

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
      names = "--format",
      paramLabel = "FORMAT",
      description =
          "smiles: one a line, empty if it is no molecule; csv: with a header; json: one object a molecule with smiles and selfies, and"
              + " a last one with event=finished (default: smiles).")
  private Format format;

  @Option(names = "--json", description = "The same as --format json.")
  private boolean json;

  @Option(
      names = "--picture",
      paramLabel = "FILE",
      description = "Draw the molecules (the first " + MOST_IN_PICTURE + " that are valid) in a grid; the file ends in .png or .svg.")
  private Path picture;

  GenerateCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() {
    Between between = start == null ? null : start.between;
    Around around = start == null ? null : start.around;
    check(between, around);
    GenerationOptions options = sampling.options(start == null ? 1 : 0);
    Map<MolecularProperty, Double> wanted = ConditionOption.parse(condition);
    DeviceType deviceType = device.select();
    VaeCheckpoint saved = VaeCheckpoint.open(checkpoint, RunDirectory.BEST, RunDirectory.LAST);
    // Whatever is wrong with this file is said before anyone waits for molecules.
    KnownMolecules knownMolecules = known == null ? null : known();
    List<String> selfies = new ArrayList<>();
    try (VaeCheckpoint.Loaded loaded = saved.load(deviceType)) {
      ConditionOption.check(wanted, loaded.model(), console);
      Generator generator = new Generator(loaded.model(), loaded.vocabulary()).condition(wanted);
      if (format == Format.CSV) {
        console.out().println(Csv.line(List.of("smiles", "selfies")));
      }
      if (start == null) {
        generator.sample(count, options, batch -> write(batch, selfies));
      } else {
        write(generator.decode(points(new LatentSpace(loaded.model()), between, around), options), selfies);
      }
    }
    if (picture != null) {
      draw(selfies);
    }
    summary(GenerationMetrics.ofSelfies(selfies, Selfies.standard(), knownMolecules));
    return Main.SUCCESS;
  }

  private void check(Between between, Around around) {
    if (count < 1) {
      throw new UsageException("-n must be at least 1, but is " + count);
    }
    if (json && format != null && format != Format.JSON) {
      throw new UsageException("--json cannot be given with --format " + format);
    }
    format = json ? Format.JSON : format == null ? Format.SMILES : format;
    if (between != null) {
      if (between.steps < 2) {
        throw new UsageException("--steps must be at least 2, but is " + between.steps);
      }
      molecule("--from", between.from);
      molecule("--to", between.to);
    }
    if (around != null) {
      if (!(around.radius > 0) || Double.isInfinite(around.radius)) {
        throw new UsageException("--radius must be above 0, but is " + around.radius);
      }
      molecule("--near", around.near);
    }
    if (picture != null) {
      if (!MoleculeGrid.canWrite(picture)) {
        throw new UsageException("--picture must end in .png or .svg, but is " + picture);
      }
      Path folder = picture.toAbsolutePath().getParent();
      if (Files.isDirectory(picture) || !Files.isWritable(Files.exists(picture) ? picture : folder)) {
        throw new FailureException("--picture: cannot write to " + picture);
      }
    }
  }

  private static void molecule(String option, String smiles) {
    try {
      Chemistry.canonical(smiles);
    } catch (MoleculeException e) {
      throw new UsageException(option + ": " + e.getMessage());
    }
  }

  private float[] points(LatentSpace space, Between between, Around around) {
    if (around != null) {
      return LatentSpace.around(space.encode(List.of(around.near)), around.radius, count, sampling.seed());
    }
    float[] ends = space.encode(List.of(between.from, between.to));
    int half = ends.length / 2;
    return LatentSpace.interpolate(
        Arrays.copyOf(ends, half), Arrays.copyOfRange(ends, half, ends.length), between.steps, between.path);
  }

  private void summary(GenerationMetrics metrics) {
    if (format == Format.JSON) {
      Map<String, Object> last = new LinkedHashMap<>();
      last.put("event", "finished");
      last.put("generated", metrics.generated());
      last.put("validity", JsonSteps.finite(metrics.validity()));
      last.put("uniqueness", JsonSteps.finite(metrics.uniqueness()));
      last.put("novelty", JsonSteps.finite(metrics.novelty()));
      console.json(last);
    } else if (known == null) {
      console.say(
          "%d molecules: validity %.3f, uniqueness %.3f (--known FILE measures novelty)",
          metrics.generated(), metrics.validity(), metrics.uniqueness());
    } else {
      console.say(
          "%d molecules: validity %.3f, uniqueness %.3f, novelty %.3f",
          metrics.generated(), metrics.validity(), metrics.uniqueness(), metrics.novelty());
    }
  }

  private KnownMolecules known() {
    MoleculeDataset molecules = MoleculeDataset.load(known, new MoleculeDataset.Options().requireSelfies(false));
    if (molecules.report().total() > 0) {
      console.say("%s", molecules.report());
    }
    return KnownMolecules.of(molecules);
  }

  private void write(List<String> batch, List<String> all) {
    for (String molecule : batch) {
      String smiles = smiles(molecule);
      switch (format) {
        case JSON -> {
          Map<String, Object> line = new LinkedHashMap<>();
          line.put("smiles", smiles);
          line.put("selfies", molecule);
          console.json(line);
        }
        case CSV -> console.out().println(Csv.line(List.of(smiles, molecule)));
        default -> console.out().println(smiles);
      }
    }
    console.flush();
    all.addAll(batch);
  }

  private void draw(List<String> selfies) {
    List<String> molecules =
        selfies.stream().map(GenerateCommand::smiles).filter(Chemistry::isValid).limit(MOST_IN_PICTURE).toList();
    if (molecules.isEmpty()) {
      console.say("none of the molecules is valid: %s was not written", picture);
      return;
    }
    MoleculeGrid.write(molecules, List.of(), PICTURE_COLUMNS, picture);
    console.say("picture    %s", picture);
  }

  /** An empty line stands for tokens that are no molecule. */
  static String smiles(String selfies) {
    try {
      return Selfies.standard().decode(selfies);
    } catch (SelfiesException e) {
      return "";
    }
  }
}
