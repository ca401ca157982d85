// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.file.Path;

/** A file of molecules or a vocabulary that cannot be used at all. The message names the file and why. */
public final class ChemDataException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final transient Path file;
  private final transient BadRecordReport report;

  ChemDataException(Path file, String reason, Throwable cause) {
    super(file + ": " + reason, cause);
    this.file = file;
    this.report = null;
  }

  ChemDataException(Path file, String reason, BadRecordReport report) {
    super(file + ": " + reason);
    this.file = file;
    this.report = report;
  }

  /** @return the file at fault; after serialization null */
  public Path file() {
    return file;
  }

  /** @return the records that were rejected before it was given up, or null if none were looked at */
  public BadRecordReport report() {
    return report;
  }
}
