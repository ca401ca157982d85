// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.lang.reflect.Type;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/** docs/configuration.md is what the records and the presets say. With -Dmolfuse.writeDocs=true the test writes the page first. */
class ConfigurationPageTest {
  private static final Path PAGE = Path.of("docs/configuration.md");
  private static final Path DEFAULTS = Path.of("src/main/resources/io/molfuse/cli/presets/defaults.yaml");

  /** The comments above the keys of defaults.yaml, by path. */
  private static Map<String, String> comments() throws IOException {
    Map<String, String> comments = new LinkedHashMap<>();
    Deque<String> path = new ArrayDeque<>();
    String comment = null;
    for (String line : Files.readAllLines(DEFAULTS)) {
      String text = line.strip();
      if (text.startsWith("#")) {
        comment = (comment == null ? "" : comment + " ") + text.substring(1).strip();
        continue;
      }
      if (text.contains(":")) {
        int depth = line.indexOf(text) / 2;
        while (path.size() > depth) {
          path.removeLast();
        }
        path.addLast(text.substring(0, text.indexOf(':')));
        if (comment != null) {
          comments.put(String.join(".", path), comment);
        }
      }
      comment = null;
    }
    return comments;
  }

  private static String text(Setting root, String path) {
    Setting setting = root.at(path);
    if (setting instanceof Setting.Items items) {
      return items.values().stream().map(value -> ((Setting.Scalar) value).text()).collect(Collectors.joining(", ", "[", "]"));
    }
    assertThat(setting).as("the default of %s", path).isInstanceOf(Setting.Scalar.class);
    String text = ((Setting.Scalar) setting).text();
    return text == null ? "" : text;
  }

  private static String type(Type type) {
    return type instanceof Class<?> plain && plain.isEnum() ? "name" : SettingBinder.expected(type).replaceFirst("^an? ", "");
  }

  private static String page() throws IOException {
    Map<String, Type> leaves = SettingBinder.leaves(Configuration.class);
    Map<String, String> comments = comments();
    // A comment for each key, and none for keys that are gone.
    assertThat(new TreeSet<>(comments.keySet())).isEqualTo(new TreeSet<>(leaves.keySet()));
    Setting defaults = Preset.defaults();
    StringBuilder page = new StringBuilder();
    page.append("# Configuration\n\n");
    page.append("The keys of the files that `bin/molfuse train --config FILE` reads. A file says what differs from the preset, such as\n\n");
    page.append("```yaml\npreset: medium\ndata:\n  path: mine.smi.gz\ntraining:\n  epochs: 5\n  beta: 0.001\n```\n\n");
    page.append("and `--set training.beta=0.001` sets any key on the command line: the value is YAML, mappings are laid over what is there, and\n");
    page.append("values of lists are named by their number from 0. Of several places that give a key, the later one holds: the defaults below,\n");
    page.append("the preset, the file, the other options, `--set` in the order given. Unknown keys, keys given twice and values out of range are\n");
    page.append("refused. The whole configuration of a run lies in its checkpoints as `configuration.yaml`; `--resume` goes on with it, and of it\n");
    page.append("lets only these be changed:\n");
    page.append(String.join(", ", Overrides.WITH_RESUME.stream().map(key -> "`" + key + "`").toList())).append(".\n\n");
    page.append("The comments of `presets/defaults.yaml` and the program's records make this page; a test compares them.\n\n");
    page.append("| key | type | default | meaning |\n|---|---|---|---|\n");
    leaves.forEach((key, type) ->
        page.append("| `").append(key).append("` | ").append(type(type)).append(" | ").append(text(defaults, key)).append(" | ")
            .append(comments.get(key)).append(" |\n"));
    page.append("\n## Presets\n\nWhere they differ.\n\n| key |");
    Arrays.stream(Preset.Name.values()).forEach(name -> page.append(' ').append(name).append(" |"));
    page.append("\n|---|").append("---|".repeat(Preset.Name.values().length)).append('\n');
    leaves.keySet().stream().filter(key -> !key.equals("preset")).forEach(key -> {
      var values = Arrays.stream(Preset.Name.values()).map(name -> text(Preset.settings(name), key)).toList();
      if (values.stream().distinct().count() > 1) {
        page.append("| `").append(key).append("` | ").append(String.join(" | ", values)).append(" |\n");
      }
    });
    return page.toString();
  }

  @Test
  void thePageSaysWhatTheRecordsAndThePresetsSay() throws IOException {
    if (Boolean.getBoolean("molfuse.writeDocs")) {
      Files.writeString(PAGE, page());
    }
    assertThat(PAGE).content().as("to write it anew: -Dmolfuse.writeDocs=true").isEqualTo(page());
  }
}
