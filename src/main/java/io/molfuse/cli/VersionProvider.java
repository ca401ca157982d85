// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.ops.Molfuse;
import picocli.CommandLine.IVersionProvider;

/** The native library's version, which is the program's. */
final class VersionProvider implements IVersionProvider {
  @Override
  public String[] getVersion() {
    return new String[] {"molfuse " + Molfuse.version()};
  }
}
