// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.Precision;
import io.molfuse.train.TrainingConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class ConfigurationTest {
  @TempDir Path folder;

  private Setting file(String text) throws IOException {
    Overrides overrides = new Overrides();
    overrides.file(Files.writeString(folder.resolve("run.yaml"), text));
    return overrides.over(Preset.settings(Preset.Name.SMALL));
  }

  private void refusesFile(String text, String message) {
    assertThatThrownBy(() -> Configuration.of(file(text))).isInstanceOf(FailureException.class).hasMessage(folder + "/run.yaml, " + message);
  }

  private static Configuration set(String... assignments) {
    Overrides overrides = new Overrides();
    for (String assignment : assignments) {
      overrides.set(assignment);
    }
    return Configuration.of(overrides.over(Preset.settings(Preset.Name.SMALL)));
  }

  private static void refusesSet(String message, String... assignments) {
    assertThatThrownBy(() -> set(assignments)).isInstanceOf(UsageException.class).hasMessage(message);
  }

  @ParameterizedTest
  @EnumSource(Preset.Name.class)
  void writtenConfigurationsReadBackEqual(Preset.Name name) {
    Configuration configuration = Preset.load(name);
    assertThat(configuration.preset()).isEqualTo(name);
    Setting read = YamlSettings.parse(configuration.yaml(), new Origin(Origin.Layer.FILE, "configuration.yaml", 1));
    assertThat(Configuration.of(read)).isEqualTo(configuration);
  }

  @Test
  void awkwardValuesReadBackEqual() {
    for (String path : List.of("", " a ", "null", "12", "a: b # c", "'\"\\", "\t\n", "a\u00e9\u6f22\ud83d\ude00", "- x", "*x", "true", "{")) {
      Configuration small = Preset.load(Preset.Name.SMALL);
      Configuration.Data data = new Configuration.Data(path, 5, Configuration.Access.MEMORY, 1, Integer.MAX_VALUE);
      Configuration configuration = new Configuration(null, data, small.model(), small.training());
      Setting read = YamlSettings.parse(configuration.yaml(), new Origin(Origin.Layer.FILE, "configuration.yaml", 1));
      assertThat(Configuration.of(read)).isEqualTo(configuration);
    }
    Configuration extreme =
        set("training.learning_rate=1e-300", "training.seed=" + Long.MIN_VALUE, "training.max_minutes=" + Double.MAX_VALUE);
    assertThat(extreme.training().learningRate()).isEqualTo(1e-300);
    assertThat(extreme.training().seed()).isEqualTo(Long.MIN_VALUE);
    Setting read = YamlSettings.parse(extreme.yaml(), new Origin(Origin.Layer.FILE, "configuration.yaml", 1));
    assertThat(Configuration.of(read)).isEqualTo(extreme);
  }

  @Test
  void theThreePresetsByTheSizeOfTheData() {
    Configuration small = Preset.load(Preset.Name.SMALL);
    Configuration medium = Preset.load(Preset.Name.MEDIUM);
    Configuration large = Preset.load(Preset.Name.LARGE);
    assertThat(small.data().access()).isEqualTo(Configuration.Access.MEMORY);
    assertThat(small.training().batchSize()).isEqualTo(64);
    assertThat(medium.data().access()).isEqualTo(Configuration.Access.STREAMING);
    assertThat(medium.data().shuffleBuffer()).isEqualTo(2000);
    assertThat(medium.training().batchSize()).isEqualTo(32);
    assertThat(large.data().access()).isEqualTo(Configuration.Access.STREAMING);
    assertThat(large.data().shuffleBuffer()).isEqualTo(5000);
    assertThat(large.training().batchSize()).isEqualTo(16);
    assertThat(large.training().accumulation()).isEqualTo(4);
    assertThat(large.training().checkpointing()).isTrue();
    assertThat(medium.training().checkpointing()).isFalse();
    assertThat(Preset.forData(49_999)).isEqualTo(Preset.Name.SMALL);
    assertThat(Preset.forData(50_000)).isEqualTo(Preset.Name.MEDIUM);
    assertThat(Preset.forData(500_000)).isEqualTo(Preset.Name.MEDIUM);
    assertThat(Preset.forData(500_001)).isEqualTo(Preset.Name.LARGE);
  }

  @Test
  void trainingLoopGetsWhatTheFileSays() throws IOException {
    TrainingConfig config =
        Configuration.of(
                file(
                    "training: {epochs: 3, max_minutes: 1.5, schedule: linear, warmup_steps: 7, min_lr_ratio: 0.25,\n"
                        + "  rate_factors: {decoder: 2}, weight_decay: 0.5, clip_norm: 3, accumulation: 2, log_every: 9,\n"
                        + "  checkpoint_minutes: 2, seed: 11, learning_rate: 1e-3, max_steps: 12, precision: bf16}"))
            .training()
            .config();
    assertThat(config)
        .isEqualTo(
            new TrainingConfig(
                3,
                12,
                90,
                1e-3,
                Map.of("encoder", 1.0, "decoder", 2.0, "latent", 0.8),
                new LearningRateSchedule(LearningRateSchedule.Kind.LINEAR, 7, 0.25),
                0.5,
                3,
                2,
                9,
                120,
                11)
                .with(Precision.BF16));
  }

  @Test
  void aFileNeedNotSayAll() throws IOException {
    assertThat(Configuration.of(file(""))).isEqualTo(Preset.load(Preset.Name.SMALL));
    assertThat(Configuration.of(file("training:\n  # beta: 1\n"))).isEqualTo(Preset.load(Preset.Name.SMALL));
    assertThat(Configuration.of(file("training:\n  beta: 1\n")).training().beta()).isEqualTo(1);
  }

  @Test
  void unknownKeysAreRefusedWithTheNearestKnownOne() {
    refusesFile("training:\n  bata: 1\n", "line 2: unknown key training.bata; the nearest known one is training.beta");
    refusesFile("trainig:\n  beta: 1\n", "line 1: unknown key trainig; the nearest known one is training");
    refusesFile("data:\n  workers: 1\nbeta: 1\n", "line 3: unknown key beta; the nearest known one is training.beta");
    refusesFile("model:\n  encoder:\n    width: 8\n", "line 3: unknown key model.encoder.width; the nearest known one is model.latent.width");
    refusesFile("training:\n  rate_factors:\n    encodr: 1\n",
        "line 3: unknown key training.rate_factors.encodr; the nearest known one is training.rate_factors.encoder");
    refusesSet("--set training.lerning_rate=1: unknown key training.lerning_rate; the nearest known one is training.learning_rate",
        "training.lerning_rate=1");
    refusesSet("--set a.b.c=1: unknown key a; the nearest known one is data", "a.b.c=1");
  }

  @ParameterizedTest
  @CsvSource({"kitten,sitting,3", "beta,bata,1", "beta,beta,0", "'',beta,4", "abcd,acbd,2"})
  void editDistance(String from, String to, int distance) {
    assertThat(NearestKey.distance(from, to)).isEqualTo(distance);
    assertThat(NearestKey.distance(to, from)).isEqualTo(distance);
  }

  @Test
  void wrongTypesNameFileLineKeyValueAndWhatWasExpected() {
    refusesFile("training:\n  batch_size: many\n", "line 2: training.batch_size must be an integer, but is \"many\"");
    refusesFile("training:\n  batch_size: 1.5\n", "line 2: training.batch_size must be an integer, but is \"1.5\"");
    refusesFile("training:\n  epochs: 1\n  batch_size: 3000000000\n",
        "line 3: training.batch_size must be an integer from -2147483648 to 2147483647, but is \"3000000000\"");
    refusesFile("training:\n  beta: .nan\n", "line 2: training.beta must be a number, but is \".nan\"");
    refusesFile("training:\n  beta: [1, 2]\n", "line 2: training.beta must be a number, but is a list of 2");
    refusesFile("training:\n  beta:\n", "line 2: training.beta must be a number, but is empty");
    refusesFile("training:\n  monitor: yes\n", "line 2: training.monitor must be true or false, but is \"yes\"");
    refusesFile("training:\n  schedule: cosin\n",
        "line 2: training.schedule must be one of cosine, linear, exponential, constant, but is \"cosin\"");
    refusesFile("preset: huge\n", "line 1: preset must be one of tiny, quick, small, medium, large, but is \"huge\"");
    refusesFile("training:\n  rate_factors: 1\n",
        "line 2: training.rate_factors must be a mapping with the keys encoder, decoder, latent, but is \"1\"");
    refusesFile("training:\n  beta: {x: 1}\n", "line 2: training.beta must be a number, but is a mapping");
    refusesSet("--set training.beta.x=1: training.beta must be a number, but is a mapping", "training.beta.x=1");
  }

  @Test
  void valuesOutOfRangeAreRefusedWhereTheyAreGiven() {
    refusesFile("training:\n  beta: -1\n", "line 2: training.beta must be at least 0, but is -1");
    refusesFile("training:\n  learning_rate: 0\n", "line 2: training.learning_rate must be above 0, but is 0");
    refusesFile("training:\n  rate_factors:\n    latent: -0.5\n",
        "line 3: training.rate_factors.latent must be at least 0, but is -0.5");
    refusesFile("model:\n  encoder:\n    dropout: 1\n", "line 3: model.encoder.dropout must be at least 0 and below 1, but is 1.0");
    refusesFile("data:\n  max_vocabulary: 4\n", "line 2: data.max_vocabulary must be at least 5, but is 4");
    refusesSet("--set training.batch_size=0: training.batch_size must be at least 1, but is 0", "training.batch_size=0");
  }

  @Test
  void ofSettingsThatDoNotFitTheOneGivenLastIsToBlame() {
    refusesFile("model:\n  encoder:\n    selected: 9\n", "line 3: model.encoder.layers must be at least model.encoder.selected, 9, but is 4");
    refusesSet("--set model.encoder.selected=9: model.encoder.layers must be at least model.encoder.selected, 9, but is 4",
        "model.encoder.selected=9");
    refusesFile("data:\n  access: streaming\n  shuffle_buffer: 10\n",
        "line 3: data.shuffle_buffer must be at least training.batch_size, 64, for data.access streaming, but is 10");
    refusesSet("--set training.batch_size=3000: data.shuffle_buffer must be at least training.batch_size, 3000, for data.access"
        + " streaming, but is 2000", "data.access=streaming", "training.batch_size=3000");
    refusesSet("--set training.epochs=0: training.epochs, training.max_steps or training.max_minutes must be above 0, but all are 0",
        "training.epochs=0");
    refusesFile("training:\n  schedule: exponential\n  min_lr_ratio: 0\n",
        "line 3: training.min_lr_ratio must be in 0..1, and above 0 for training.schedule exponential, but is 0");
  }

  @Test
  void whatIsNoConfigurationIsRefused() {
    refusesFile("training:\n  beta: 1\n  epochs: 2\n  beta: 2\n", "line 4: the key beta is there twice, first in line 2");
    refusesFile("data: &d\n  workers: 1\ntraining: *d\n", "line 3: references to other parts of the file, such as *d, are not supported");
    refusesFile("preset: small\n---\npreset: large\n", "line 3: there must be one document only");
    refusesFile("just text\n", "line 1: a configuration must be a mapping with the keys preset, data, model, training, but is \"just text\"");
    assertThatThrownBy(() -> file("training:\n  beta: 1\n bad\n"))
        .isInstanceOf(FailureException.class)
        .hasMessageStartingWith(folder + "/run.yaml, line ")
        .hasMessageContaining("not valid YAML: ");
    assertThatThrownBy(() -> new Overrides().file(folder.resolve("none.yaml")))
        .isInstanceOf(FailureException.class)
        .hasMessage("--config " + folder.resolve("none.yaml") + ": no such file");
    Setting bare = YamlSettings.parse("preset: small\ndata: {workers: 1}", new Origin(Origin.Layer.FILE, "bare.yaml", 1));
    assertThatThrownBy(() -> Configuration.of(bare))
        .isInstanceOf(FailureException.class)
        .hasMessage("bare.yaml, line 2: data.max_vocabulary is missing; it must be an integer");
  }

  @Test
  void laterChangesHold() throws IOException {
    assertThat(set("training.beta=1", "training.beta=2").training().beta()).isEqualTo(2);
    Configuration several = set("training={beta: 3, rate_factors: {decoder: 4}}", "training.precision=BF16", "data.path=12");
    assertThat(several.training().beta()).isEqualTo(3);
    assertThat(several.training().rateFactors()).isEqualTo(new TrainingSettings.RateFactors(1, 4, 0.8));
    assertThat(several.training().precision()).isEqualTo(Precision.BF16);
    assertThat(several.data().path()).isEqualTo("12");
    assertThat(set("data.path=a", "data.path=").data().path()).isNull();
    Overrides overrides = new Overrides();
    overrides.file(Files.writeString(folder.resolve("run.yaml"), "training: {beta: 1, seed: 1, epochs: 1}"));
    overrides.option("--beta", 2.0, "training.beta");
    overrides.option("--seed", 2L, "training.seed");
    overrides.set("training.beta=3");
    TrainingSettings training = Configuration.of(overrides.over(Preset.settings(Preset.Name.SMALL))).training();
    assertThat(List.of(training.beta(), (double) training.seed(), (double) training.epochs())).containsExactly(3.0, 2.0, 1.0);
  }

  @Test
  void assignmentsNeedAKeyAndAValue() {
    for (String wrong : List.of("training.beta", "=1", ".a=1", "a..b=1", "a.=1")) {
      refusesSet("--set " + wrong + ": must be KEY=VALUE, such as training.beta=0.001", wrong);
    }
    assertThatThrownBy(() -> set("training.beta={")).isInstanceOf(UsageException.class).hasMessageContaining("not valid YAML");
  }

  record Shelf(@JsonProperty(value = "books", required = true) List<Book> books, @JsonProperty("sizes") List<Integer> sizes) {}

  record Book(@JsonProperty(value = "pages", required = true) double pages) {
    Book {
      if (pages < 1) {
        throw new IllegalArgumentException("pages must be at least 1");
      }
    }
  }

  @Test
  void listsAreChangedByNumber() {
    Setting shelf = YamlSettings.parse("books:\n- pages: 1\n- pages: 2\n", new Origin(Origin.Layer.FILE, "shelf.yaml", 1));
    Overrides overrides = new Overrides();
    overrides.set("books.1.pages=7.5");
    assertThat(SettingBinder.bind(Shelf.class, overrides.over(shelf)).books()).containsExactly(new Book(1), new Book(7.5));
    overrides.set("books.2.pages=3");
    assertThatThrownBy(() -> overrides.over(shelf))
        .isInstanceOf(UsageException.class)
        .hasMessage("--set books.2.pages=3: the list has 2 values, numbered from 0; there is no 2");
    Setting wrong = YamlSettings.parse("books:\n- pages: 1\n- pages: x\n", new Origin(Origin.Layer.FILE, "shelf.yaml", 1));
    assertThatThrownBy(() -> SettingBinder.bind(Shelf.class, wrong))
        .hasMessage("shelf.yaml, line 3: books.1.pages must be a number, but is \"x\"");
    Setting low = YamlSettings.parse("books:\n- pages: 1\n- pages: 0\n", new Origin(Origin.Layer.FILE, "shelf.yaml", 1));
    assertThatThrownBy(() -> SettingBinder.bind(Shelf.class, low))
        .hasMessageStartingWith("shelf.yaml, line 3: books.1.pages must be at least 1");
  }

  @Test
  void aResumedRunKeepsWhatDecidesItsResults() {
    for (String key : SettingBinder.leaves(Configuration.class).keySet()) {
      Overrides overrides = new Overrides();
      overrides.set(key + "=1");
      if (Overrides.WITH_RESUME.contains(key)) {
        overrides.checkResumable();
      } else {
        assertThatThrownBy(overrides::checkResumable)
            .isInstanceOf(UsageException.class)
            .hasMessageStartingWith("--set " + key + "=1: " + key + " cannot be changed with --resume")
            .hasMessageContaining("training.max_steps");
      }
    }
    assertThat(SettingBinder.leaves(Configuration.class).keySet()).containsAll(Overrides.WITH_RESUME);
    Overrides whole = new Overrides();
    whole.set("training={epochs: 2, beta: 1}");
    assertThatThrownBy(whole::checkResumable).hasMessageContaining("training.beta cannot be changed");
  }
}
