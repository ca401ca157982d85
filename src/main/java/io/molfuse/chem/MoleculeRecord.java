// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.file.Path;

/**
 * One line of a SMILES file, not yet parsed.
 *
 * @param smiles the first field of the line
 * @param name the rest of the line without the white space around it, or an empty string
 * @param file where it stands
 * @param line 1-based number of its line, counting blank lines and comments
 */
public record MoleculeRecord(String smiles, String name, Path file, long line) {}
