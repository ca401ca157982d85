// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.dataformat.yaml.YAMLFactory;
import com.fasterxml.jackson.dataformat.yaml.YAMLParser;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** Reads YAML and remembers the lines. Types are not guessed from the text: whoever wants a number takes the text for one. */
final class YamlSettings {
  private static final YAMLFactory YAML = new YAMLFactory();
  private static final Pattern LINE = Pattern.compile("line (\\d+)");

  private final YAMLParser parser;
  private final Origin origin;

  private YamlSettings(YAMLParser parser, Origin origin) {
    this.parser = parser;
    this.origin = origin;
  }

  /**
   * Reads one document.
   *
   * @param text YAML
   * @param origin where it is from
   * @return its value
   * @throws FailureException or UsageException, by the origin, if it is no YAML, has a key twice, or refers to other parts of itself
   */
  static Setting parse(String text, Origin origin) {
    try (YAMLParser parser = YAML.createParser(text)) {
      YamlSettings reader = new YamlSettings(parser, origin);
      Setting setting = parser.nextToken() == null ? new Setting.Scalar(null, origin) : reader.value(origin);
      if (parser.nextToken() != null) {
        throw reader.here().refusal("there must be one document only");
      }
      return setting;
    } catch (JsonProcessingException e) {
      throw notYaml(e, origin);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private Setting value(Origin from) throws IOException {
    if (parser.isCurrentAlias()) {
      throw here().refusal("references to other parts of the file, such as *" + parser.getText() + ", are not supported");
    }
    JsonToken token = parser.currentToken();
    if (token == JsonToken.START_OBJECT) {
      return section(from);
    }
    if (token == JsonToken.START_ARRAY) {
      List<Setting> values = new ArrayList<>();
      while (parser.nextToken() != JsonToken.END_ARRAY) {
        values.add(value(here()));
      }
      return new Setting.Items(values, from);
    }
    return new Setting.Scalar(token == JsonToken.VALUE_NULL ? null : parser.getText(), from);
  }

  private Setting section(Origin from) throws IOException {
    Map<String, Setting> values = new LinkedHashMap<>();
    while (parser.nextToken() != JsonToken.END_OBJECT) {
      String key = parser.currentName();
      Origin at = here();
      parser.nextToken();
      Setting value = value(at);
      Setting before = values.put(key, value);
      if (before != null) {
        throw at.refusal("the key " + key + " is there twice, first in line " + before.origin().line());
      }
    }
    return new Setting.Section(values, from);
  }

  private Origin here() {
    return origin.atLine(parser.currentTokenLocation().getLineNr());
  }

  /** The parser's message has several lines, with the text around the place among them. */
  private static RuntimeException notYaml(JsonProcessingException e, Origin origin) {
    String message = String.valueOf(e.getOriginalMessage());
    int line = e.getLocation() == null ? 1 : Math.max(1, e.getLocation().getLineNr());
    for (Matcher lines = LINE.matcher(message); lines.find(); ) {
      line = Integer.parseInt(lines.group(1));
    }
    String reason =
        message.lines().filter(text -> !text.isBlank() && !Character.isWhitespace(text.charAt(0))).collect(Collectors.joining(", "));
    return origin.atLine(line).refusal("not valid YAML: " + reason);
  }
}
