// The state of a machine, as one word.

// groups are the filters, in the order of their buttons.
export const groups = { creating: 'Creating', ready: 'Ready', suspended: 'Suspended', off: 'Off', failed: 'Failed', destroying: 'Destroying' };

const groupsByStatus = {
  'powered-on': 'ready', 'powering-on': 'ready', resetting: 'ready', 'powering-off': 'off', 'powered-off': 'off',
  suspending: 'suspended', suspended: 'suspended', paused: 'suspended', blocked: 'failed',
};

// stateOf returns a machine's state and its group. The phase describes the creation, and the power state what comes
// after it, so that only one of them says something: a ready machine that is suspended is suspended.
export function stateOf({ phase, status }) {
  switch (phase) {
    case 'ready':
      if (status === 'powered-on') return { name: 'ready', group: 'ready' };
      return { name: status || 'unknown', group: groupsByStatus[status] ?? 'failed' };
    case 'failed':
    case 'destroying':
      return { name: phase, group: phase };
    default:
      return { name: phase || 'unreadable', group: phase ? 'creating' : 'failed' };
  }
}

// allowedActions lists the power actions that each power state allows.
export const allowedActions = {
  'powered-on': ['shutdown', 'suspend', 'reset', 'off'],
  'powered-off': ['on'],
  suspended: ['resume', 'off'],
  paused: ['resume', 'reset', 'off'],
  blocked: ['reset', 'off'],
  'powering-on': ['off'],
  'powering-off': ['off'],
  suspending: ['off'],
  resetting: ['off'],
};

// mainAction is the action that a row offers besides Destroy.
export function mainAction({ phase, status }) {
  if (phase === 'failed') return { name: 'retry', label: 'Try again' };
  if (phase !== 'ready') return null;
  return {
    'powered-on': { name: 'shutdown', label: 'Shut down' },
    'powered-off': { name: 'on', label: 'Power on' },
    suspended: { name: 'resume', label: 'Resume' },
    paused: { name: 'resume', label: 'Resume' },
  }[status] ?? null;
}
