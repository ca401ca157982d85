// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

/**
 * One of the ways of doing what a benchmark does.
 *
 * @param name as it is shown
 * @param role what it is to the others
 * @param units of work in a call, by which times are divided to compare ways that do different amounts; else 1
 * @param prepare before each iteration, outside the clock
 * @param call what is timed; returns when a device is done, too
 */
record Way(String name, Role role, double units, Runnable prepare, Runnable call) {
  private static final Runnable NOTHING = () -> {};

  /** What the time of a way is held against. */
  enum Role {
    OURS, PEER
  }

  static Way ours(Runnable call) {
    return ours("molfuse", call);
  }

  static Way ours(String name, Runnable call) {
    return new Way(name, Role.OURS, 1, NOTHING, call);
  }

  static Way peer(String name, Runnable call) {
    return new Way(name, Role.PEER, 1, NOTHING, call);
  }

  Way units(double count) {
    return new Way(name, role, count, prepare, call);
  }

  Way named(String other) {
    return new Way(other, role, units, prepare, call);
  }

  Way before(Runnable before) {
    return new Way(name, role, units, before, call);
  }
}
