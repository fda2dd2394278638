/**
 * Tells of what a driver took; when the one that is told throws, it is given back, and the device stays unbound.
 * @returns what was taken
 * @throws what `told` throws
 */
export async function handOver<Taken extends { close(): Promise<void> }>(
  taken: Taken,
  told: (taken: Taken) => void,
): Promise<Taken> {
  try {
    told(taken);
  } catch (error) {
    await taken.close();
    throw error;
  }
  return taken;
}
