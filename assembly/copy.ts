/** Copies bytes: inline vectors where a call of the copy routine would cost more than the copy. */
export function copyBytes(target: usize, source: usize, length: usize): void {
  if (length > 256) {
    memory.copy(target, source, length);
    return;
  }
  if (length >= 16) {
    const last = length - 16;
    const tail = v128.load(source + last); // read first: the last vector may overlap the one before it
    let i: usize = 0;
    while (i < last) {
      v128.store(target + i, v128.load(source + i));
      i += 16;
    }
    v128.store(target + last, tail);
    return;
  }
  if (length >= 8) {
    const tail = load<u64>(source + length - 8);
    store<u64>(target, load<u64>(source));
    store<u64>(target + length - 8, tail);
    return;
  }
  for (let i: usize = 0; i < length; i++) store<u8>(target + i, load<u8>(source + i));
}
