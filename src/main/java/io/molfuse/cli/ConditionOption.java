// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.PropertyStatistics;
import io.molfuse.models.MolecularVae;
import java.util.EnumMap;
import java.util.Map;

/** What --condition asks for. */
final class ConditionOption {
  private static final String NAME = "--condition";

  private ConditionOption() {}

  /** NAME=VALUE, separated by commas; null asks for nothing. */
  static Map<MolecularProperty, Double> parse(String text) {
    Map<MolecularProperty, Double> wanted = new EnumMap<>(MolecularProperty.class);
    if (text == null) {
      return wanted;
    }
    for (String part : text.split(",", -1)) {
      int equals = part.indexOf('=');
      if (equals < 0) {
        throw new UsageException(NAME + " must be NAME=VALUE,..., such as logP=2.5,weight=300, but has \"" + part.strip() + "\"");
      }
      MolecularProperty property = property(part.substring(0, equals).strip());
      if (wanted.put(property, value(property, part.substring(equals + 1).strip())) != null) {
        throw new UsageException(NAME + " names " + property.label() + " twice");
      }
    }
    return wanted;
  }

  private static MolecularProperty property(String name) {
    try {
      return MolecularProperty.of(name);
    } catch (IllegalArgumentException e) {
      throw new UsageException(NAME + ": " + e.getMessage());
    }
  }

  private static double value(MolecularProperty property, String text) {
    double value;
    try {
      value = Double.parseDouble(text);
    } catch (NumberFormatException e) {
      value = Double.NaN;
    }
    if (!Double.isFinite(value)) {
      throw new UsageException(NAME + ": " + property.label() + " must be a finite number, but is \"" + text + "\"");
    }
    return value;
  }

  /** Refuses what the model does not know, and warns of what its training data hardly had. */
  static void check(Map<MolecularProperty, Double> wanted, MolecularVae model, Console console) {
    try {
      model.condition(wanted);
    } catch (IllegalArgumentException e) {
      throw new UsageException(NAME + ": " + e.getMessage());
    }
    for (PropertyStatistics trained : model.statistics()) {
      Double value = wanted.get(trained.property());
      if (value != null && !trained.covers(value)) {
        console.say(
            "warning: %s=%s is outside what the model was trained on: 98 of 100 molecules had %.4g to %.4g",
            trained.property().label(), Configuration.number(value), trained.low(), trained.high());
      }
    }
  }
}
