import { popPeek, popRelease, pushCommit, pushReserve } from "../../assembly/burst";
import { complete, post, reap } from "./sides";
export { ringAttach, ringCreate, ringEnable, ringNegotiated } from "../../assembly/ring";
export { post, complete, reap };
export function reserveN(e: usize, n: u32, times: u32): i32 { let r=0; for (let i:u32=0;i<times;i++) r+=pushReserve(e,2,0,n,0); return r; }
export function reserveTN(e: usize, t: usize, n: u32, times: u32): i32 { let r=0; for (let i:u32=0;i<times;i++) r+=pushReserve(e,2,t,n,0); return r; }
export function peekN(e: usize, t: usize, n: u32, flags: u32, times: u32): i32 { let r=0; for (let i:u32=0;i<times;i++) r+=popPeek(e,1,t,n,flags); return r; }
