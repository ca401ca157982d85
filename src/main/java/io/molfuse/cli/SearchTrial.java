// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A configuration of a search, and how far it came. */
final class SearchTrial {
  /** How it stands. */
  enum Status {
    /** Not begun. */
    @JsonProperty("planned")
    PLANNED,
    /** Begun; found in a file, its process was killed. */
    @JsonProperty("running")
    RUNNING,
    /** Ended before its time, with a checkpoint to go on from. */
    @JsonProperty("unfinished")
    UNFINISHED,
    /** As far as it was to come so far. */
    @JsonProperty("waiting")
    WAITING,
    /** Others were better. */
    @JsonProperty("dropped")
    DROPPED,
    /** At its end. */
    @JsonProperty("finished")
    FINISHED,
    /** It cannot go on. */
    @JsonProperty("failed")
    FAILED
  }

  /** From 1. */
  @JsonProperty("trial")
  int number;

  @JsonProperty("status")
  Status status = Status.PLANNED;

  /** Why it failed. */
  @JsonProperty("reason")
  String reason;

  /** The text of each value. */
  @JsonProperty("settings")
  Map<String, String> settings = new LinkedHashMap<>();

  /** What is compared, at the end of each rung. */
  @JsonProperty("values")
  List<Double> values = new ArrayList<>();

  /** Steps done. */
  @JsonProperty("step")
  long step;

  /** Seconds trained. */
  @JsonProperty("seconds")
  double seconds;

  /** Whether its run is over, so that a later rung has nothing to add. */
  @JsonProperty("over")
  boolean over;

  /** Sittings in a row that were begun at this step and of whose end nothing is known. */
  @JsonProperty("begun")
  int begun;

  /** The latest of the values, or null. */
  Double value() {
    return values.isEmpty() ? null : values.get(values.size() - 1);
  }
}
