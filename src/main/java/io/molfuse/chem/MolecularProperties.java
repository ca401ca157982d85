// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * What molecules are conditioned on and judged by. The values agree with those of RDKit 2026.9, whose atom typing and aromaticity the
 * models below were fitted to; stereo plays no part in any of them.
 *
 * @param weight average molecular weight in g/mol, of labelled atoms the mass of the isotope
 * @param logP logarithm of the octanol-water partition coefficient (Wildman and Crippen 1999)
 * @param qed quantitative estimate of drug-likeness, 0 to 1 (Bickerton et al. 2012, mean weights)
 * @param tpsa topological polar surface area of nitrogen and oxygen in square angstroms (Ertl et al. 2000)
 * @param rings number of relevant cycles (Vismara 1997), which in molecules without cages is that of smallest rings
 * @param donors hydrogen-bond donors: nitrogen, oxygen and sulfur atoms with hydrogen
 * @param acceptors hydrogen-bond acceptors by RDKit's definition 2, close to that of Gobbi and Poppinger (1998)
 * @param rotatableBonds single bonds in chains that are free to turn: not to ends, amides, esters, tert-butyl or trihalomethyl groups
 * @param heavyAtoms atoms other than hydrogen
 */
public record MolecularProperties(
    double weight, double logP, double qed, double tpsa, int rings, int donors, int acceptors, int rotatableBonds, int heavyAtoms) {

  private static final Smarts DONOR = Smarts.of("[N&!H0&v3,N&!H0&+1&v4,O&H1&+0,S&H1&+0,n&H1&+0]");
  private static final Smarts ACCEPTOR =
      Smarts.of(
          "[$([O,S;H1;v2]-[!$(*=[O,N,P,S])]),$([O,S;H0;v2]),$([O,S;-]),$([N;v3;!$(N-*=!@[O,N,P,S])]),$([nH0X2,o,s;+0])]");

  private static final String FREE =
      "!$(*#*)&!D1&!$(C(F)(F)F)&!$(C(Cl)(Cl)Cl)&!$(C(Br)(Br)Br)&!$(C([CH3])([CH3])[CH3])&!$([CH3])";
  private static final Smarts ROTATABLE =
      Smarts.of(
          "["
              + FREE
              + "&!$([CD3](=[N,O,S])-!@[#7,O,S!D1])&!$([#7,O,S!D1]-!@[CD3]=[N,O,S])&!$([CD3](=[N+])-!@[#7!D1])"
              + "&!$([#7!D1]-!@[CD3]=[N+])]-,:;!@["
              + FREE
              + "]");

  /**
   * Reads a molecule and computes its properties. Thread-safe.
   *
   * @param smiles a molecule
   * @return its properties
   * @throws MoleculeException if it is not a molecule, saying why
   */
  public static MolecularProperties of(String smiles) {
    return of(PerceivedMolecule.of(smiles));
  }

  static MolecularProperties of(PerceivedMolecule molecule) {
    double weight = AtomicWeights.of(molecule);
    double logP = Crippen.logP(molecule.withHydrogens());
    double tpsa = PolarSurface.area(molecule);
    int donors = DONOR.countAtoms(molecule);
    int rotatable = ROTATABLE.pairs(molecule).length;
    int heavy = 0;
    for (int element : molecule.element) {
      heavy += element == Elements.H ? 0 : 1;
    }
    return new MolecularProperties(
        weight,
        logP,
        DrugLikeness.qed(molecule, weight, logP, donors, tpsa, rotatable),
        tpsa,
        molecule.rings.length,
        donors,
        ACCEPTOR.countAtoms(molecule),
        rotatable,
        heavy);
  }

  /**
   * The synthetic accessibility score, which tables of fragments make too costly to be always there (6 MB, read at first use).
   *
   * @param smiles a molecule
   * @return 1, easily made, to 10 (Ertl and Schuffenhauer 2009, as in RDKit's contributed module)
   * @throws MoleculeException if it is not a molecule, saying why
   */
  public static double syntheticAccessibility(String smiles) {
    return SyntheticAccessibility.score(PerceivedMolecule.of(smiles));
  }
}
